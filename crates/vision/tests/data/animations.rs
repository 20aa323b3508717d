//! Animations made up on the spot. The image crate writes animated GIFs alone; the other two are put together here from
//! the still images that it writes.

use image::{DynamicImage, Frame, ImageFormat, RgbImage, codecs::gif::GifEncoder};

fn still(grey: u8, width: u32, height: u32, format: ImageFormat) -> Vec<u8> {
    let image = DynamicImage::from(RgbImage::from_pixel(width, height, image::Rgb([grey; 3])));
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// One frame of each grey.
pub fn gif(greys: &[u8], width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = GifEncoder::new(&mut bytes);
    for grey in greys {
        let image = RgbImage::from_pixel(width, height, image::Rgb([*grey; 3]));
        encoder.encode_frame(Frame::new(DynamicImage::from(image).into_rgba8())).unwrap();
    }
    drop(encoder);
    bytes
}

/// The chunks of a PNG: (kind, data).
fn chunks(png: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let (mut found, mut rest) = (Vec::new(), &png[8..]);
    while rest.len() >= 12 {
        let len = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
        found.push((rest[4..8].to_vec(), rest[8..8 + len].to_vec()));
        rest = &rest[12 + len..];
    }
    found
}

fn chunk(out: &mut Vec<u8>, kind: &[u8], data: &[u8]) {
    out.extend((data.len() as u32).to_be_bytes());
    let mut crc = flate2::Crc::new();
    crc.update(kind);
    crc.update(data);
    out.extend_from_slice(kind);
    out.extend_from_slice(data);
    out.extend(crc.sum().to_be_bytes());
}

/// One frame of each grey (APNG specification 1.0).
pub fn apng(greys: &[u8], width: u32, height: u32) -> Vec<u8> {
    let (mut out, mut sequence) = (Vec::new(), 0u32);
    for (i, grey) in greys.iter().enumerate() {
        let png = still(*grey, width, height, ImageFormat::Png);
        let parts = chunks(&png);
        if i == 0 {
            out.extend_from_slice(&png[..8]);
            chunk(&mut out, b"IHDR", &parts[0].1);
            chunk(&mut out, b"acTL", &[(greys.len() as u32).to_be_bytes(), [0; 4]].concat());
        }
        let mut control: Vec<u8> =
            [sequence, width, height, 0, 0].iter().flat_map(|word| word.to_be_bytes()).collect();
        control.extend([0, 1, 0, 10, 0, 0]); // a tenth of a second, replacing what was there
        sequence += 1;
        chunk(&mut out, b"fcTL", &control);
        let data: Vec<u8> =
            parts.iter().filter(|(kind, _)| kind == b"IDAT").flat_map(|(_, data)| data.clone()).collect();
        if i == 0 {
            chunk(&mut out, b"IDAT", &data);
        } else {
            chunk(&mut out, b"fdAT", &[&sequence.to_be_bytes()[..], &data].concat());
            sequence += 1;
        }
    }
    chunk(&mut out, b"IEND", &[]);
    out
}

/// One frame of each grey (WebP container specification).
pub fn webp(greys: &[u8], width: u32, height: u32) -> Vec<u8> {
    let three = |value: u32| value.to_le_bytes()[..3].to_vec();
    let part = |kind: &[u8], data: &[u8]| {
        let mut out = [kind, &(data.len() as u32).to_le_bytes(), data].concat();
        out.resize(out.len() + data.len() % 2, 0);
        out
    };
    let size = [three(width - 1), three(height - 1)].concat();
    let mut body = b"WEBP".to_vec();
    body.extend(part(b"VP8X", &[&[2u8, 0, 0, 0][..], &size].concat()));
    body.extend(part(b"ANIM", &[0; 6]));
    for grey in greys {
        let webp = still(*grey, width, height, ImageFormat::WebP);
        // Drawn over what was there, not blended with it.
        let frame = [&[0u8; 6][..], &size, &three(100), &[2], &webp[12..]].concat();
        body.extend(part(b"ANMF", &frame));
    }
    part(b"RIFF", &body)
}
