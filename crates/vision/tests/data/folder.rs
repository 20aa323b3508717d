use image::ImageFormat;
use ophidian_vision::{
    pixels::{self, Fit, Pixels},
    source::{Source, folder, inputs},
};

use crate::common::{error, picture, put, says};

#[test]
fn every_format_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let formats = [
        ("a.png", ImageFormat::Png),
        ("b.JPG", ImageFormat::Jpeg),
        ("c.bmp", ImageFormat::Bmp),
        ("d.gif", ImageFormat::Gif),
        ("e.webp", ImageFormat::WebP),
        ("f.tiff", ImageFormat::Tiff),
    ];
    for (name, format) in formats {
        put(folder.path(), &format!("red/{name}"), &picture(format, 5, 4, [200, 40, 40]));
    }
    put(folder.path(), "grey/nested/x.png", &picture(ImageFormat::Png, 2, 2, [9, 9, 9]));
    put(folder.path(), "red/notes.txt", b"no image");
    put(folder.path(), "red/.hidden.png", b"no image");
    let found = folder::open(folder.path(), &[]).unwrap();
    assert_eq!(found.classes, ["grey", "red"]);
    let all = found.train.unwrap();
    assert_eq!(all.items.iter().map(|item| item.1).collect::<Vec<_>>(), [0, 1, 1, 1, 1, 1, 1]);
    for index in 1..7 {
        let image = all.source.pixels(index).unwrap();
        assert_eq!((image.height, image.width, image.channels), (4, 5, 3));
        let near = |a: u8, b: u8| a.abs_diff(b) < 12;
        assert!(
            image.data.chunks(3).all(|p| near(p[0], 200) && near(p[1], 40)),
            "{}",
            all.source.name_of(index)
        );
    }
}

#[test]
fn corrupt_images_are_named_one_by_one() {
    let folder = tempfile::tempdir().unwrap();
    let png = picture(ImageFormat::Png, 64, 64, [1, 2, 3]);
    put(folder.path(), "a/empty.png", b"");
    put(folder.path(), "a/text.png", b"hello");
    put(folder.path(), "a/truncated.png", &png[..png.len() / 2]);
    put(folder.path(), "a/whole.png", &png);
    let all = folder::open(folder.path(), &[]).unwrap().train.unwrap();
    says(&error(all.source.pixels(0)), &["a/empty.png", "empty"]);
    says(&error(all.source.pixels(1)), &["a/text.png", "no image of a known kind"]);
    says(&error(all.source.pixels(2)), &["a/truncated.png", "broken Png image"]);
    assert!(all.source.pixels(3).is_ok());
}

#[test]
fn absurd_sizes_are_refused() {
    // A PNG header of 60000 x 60000, its checksum made right.
    let mut png = picture(ImageFormat::Png, 1, 1, [0; 3]);
    for at in [16, 20] {
        png[at..at + 4].copy_from_slice(&60_000u32.to_be_bytes());
    }
    let mut crc = flate2::Crc::new();
    crc.update(&png[12..29]);
    png[29..33].copy_from_slice(&crc.sum().to_be_bytes());
    let (result, peak) = crate::common::peak(|| pixels::decode(&png));
    let message = result.unwrap_err();
    assert!(message.contains("60000") || message.contains("limit"), "{message}");
    assert!(peak < 1 << 20, "{peak}");
}

#[test]
fn links_that_point_back_end() {
    #[cfg(unix)]
    {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), "a/x.png", b"");
        std::os::unix::fs::symlink(folder.path(), folder.path().join("a/back")).unwrap();
        says(&error(folder::open(folder.path(), &[])), &["more than 16 folders deep"]);
    }
}

#[test]
fn transparency_lies_over_white_and_grey_stays_grey() {
    let encode = |image: image::DynamicImage| {
        let mut bytes = std::io::Cursor::new(Vec::new());
        image.write_to(&mut bytes, ImageFormat::Png).unwrap();
        pixels::decode(&bytes.into_inner()).unwrap()
    };
    let clear = encode(image::RgbaImage::from_pixel(1, 1, image::Rgba([10, 20, 30, 0])).into());
    assert_eq!(clear.data, [255, 255, 255]);
    let half = encode(image::GrayAlphaImage::from_pixel(1, 1, image::LumaA([0, 127])).into());
    assert_eq!((half.channels, half.data), (1, vec![128]));
    let deep =
        encode(image::DynamicImage::ImageLuma16(image::ImageBuffer::from_pixel(1, 1, image::Luma([0x8080]))));
    assert_eq!((deep.channels, deep.data), (1, vec![128]));
}

#[test]
fn sizes_are_fitted() {
    // Left half black, right half white, twice as wide as high.
    let data = (0..4 * 8).map(|at| if at % 8 < 4 { 0 } else { 255 }).collect();
    let wide = Pixels { height: 4, width: 8, channels: 1, data };
    let cropped = wide.clone().fit(4, 4, Fit::Crop);
    assert_eq!(cropped.data[..4], [0, 0, 255, 255]);
    let padded = wide.clone().fit(8, 8, Fit::Pad);
    assert!(padded.data[..16].iter().all(|value| *value == 0));
    assert_eq!(padded.data[2 * 8..3 * 8], [0, 0, 0, 0, 255, 255, 255, 255]);
    let stretched = wide.fit(4, 2, Fit::Stretch);
    assert_eq!((stretched.height, stretched.width), (4, 2));
    assert!(stretched.data[0] < 60 && stretched.data[1] > 195, "{:?}", stretched.data);
    let tiny = Pixels::filled(1, 4096, 3, 7);
    for fit in [Fit::Crop, Fit::Stretch, Fit::Pad] {
        assert_eq!(tiny.clone().fit(3, 5, fit).data.len(), 45);
    }
}

#[test]
fn channels_are_converted() {
    let grey = Pixels { height: 1, width: 2, channels: 1, data: vec![0, 200] };
    assert_eq!(grey.clone().with_channels(3).data, [0, 0, 0, 200, 200, 200]);
    assert_eq!(grey.with_channels(3).with_channels(1).data, [0, 200]);
    let green = Pixels { height: 1, width: 1, channels: 3, data: vec![0, 255, 0] };
    assert_eq!(green.with_channels(1).data, [150]);
}

#[test]
fn inputs_without_labels_may_be_anything() {
    let folder = tempfile::tempdir().unwrap();
    let png = picture(ImageFormat::Png, 3, 3, [9, 9, 9]);
    put(folder.path(), "flat/2.png", &png);
    put(folder.path(), "flat/1.png", &png);
    let one = put(folder.path(), "one.png", &png);
    let tar = put(folder.path(), "more.tar", &crate::common::tar(&[("any.png", &png)]));
    let idx = put(folder.path(), "x-idx3-ubyte", &crate::common::idx_images([2, 1, 1], &[5, 6]));
    let flat = folder.path().join("flat");
    let chain = inputs::open(&[&one, &tar, &flat, &idx]).unwrap();
    let names: Vec<String> = (0..chain.len()).map(|index| chain.name_of(index)).collect();
    let ends =
        ["one.png", "more.tar/any.png", "flat/1.png", "flat/2.png", "x-idx3-ubyte #0", "x-idx3-ubyte #1"];
    assert_eq!(names.len(), ends.len());
    assert!(names.iter().zip(ends).all(|(name, end)| name.ends_with(end)), "{names:?}");
    assert_eq!(chain.pixels(5).unwrap().data, [6]);
    assert!(chain.pixels(6).is_err());

    says(&error(inputs::open(&[&folder.path().join("none.png")])), &["none.png", "does not exist"]);
    let text = put(folder.path(), "text.csv", b"");
    says(&error(inputs::open(&[&text])), &["text.csv", "is no image"]);
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    says(&error(inputs::open(&[&empty])), &["holds no images"]);
}
