//! TensorBoard's event files: protocol buffers in TFRecord frames, written by hand since a scalar needs so little.
//!
//! A frame is the length (u64), its masked CRC-32C (u32), the bytes, and their masked CRC-32C, all little-endian.

/// The record every event file begins with.
pub fn version(time: f64) -> Vec<u8> {
    let mut event = Vec::new();
    double(&mut event, 1, time);
    bytes(&mut event, 3, b"brain.Event:2");
    frame(&event)
}

/// One record with the scalars of a step.
pub fn scalars(time: f64, step: u64, values: &[(&str, f64)]) -> Vec<u8> {
    let mut summary = Vec::new();
    for (tag, value) in values {
        let mut entry = Vec::new();
        bytes(&mut entry, 1, tag.as_bytes());
        key(&mut entry, 2, 5);
        entry.extend((*value as f32).to_le_bytes());
        bytes(&mut summary, 1, &entry);
    }
    let mut event = Vec::new();
    double(&mut event, 1, time);
    key(&mut event, 2, 0);
    varint(&mut event, step);
    bytes(&mut event, 5, &summary);
    frame(&event)
}

fn frame(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = length.to_vec();
    record.extend(masked_crc(&length).to_le_bytes());
    record.extend(data);
    record.extend(masked_crc(data).to_le_bytes());
    record
}

/// Field number and wire type (0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes).
fn key(out: &mut Vec<u8>, field: u64, wire: u64) {
    varint(out, field << 3 | wire);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn double(out: &mut Vec<u8>, field: u64, value: f64) {
    key(out, field, 1);
    out.extend(value.to_le_bytes());
}

fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    key(out, field, 2);
    varint(out, value.len() as u64);
    out.extend(value);
}

/// CRC-32C rotated and shifted, so that a checksum of data that holds checksums stays meaningful.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xA282_EAD8)
}

/// CRC-32 with Castagnoli's polynomial, reflected.
fn crc32c(data: &[u8]) -> u32 {
    !data.iter().fold(!0u32, |mut crc, byte| {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82F6_3B78 & (crc & 1).wrapping_neg());
        }
        crc
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_matches_the_published_values() {
        // RFC 3720, appendix B.4.
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&[0xFF; 32]), 0x62A8_AB43);
    }

    /// Reads fields of a message: (number, bytes of the value; a varint as eight bytes).
    fn fields(mut data: &[u8]) -> Vec<(u64, Vec<u8>)> {
        fn varint(data: &mut &[u8]) -> u64 {
            let (mut value, mut shift) = (0, 0);
            loop {
                let byte = data[0];
                *data = &data[1..];
                value |= u64::from(byte & 0x7F) << shift;
                shift += 7;
                if byte < 0x80 {
                    return value;
                }
            }
        }
        let mut all = Vec::new();
        while !data.is_empty() {
            let key = varint(&mut data);
            let size = match key & 7 {
                0 => {
                    all.push((key >> 3, varint(&mut data).to_le_bytes().to_vec()));
                    continue;
                }
                1 => 8,
                2 => varint(&mut data) as usize,
                5 => 4,
                wire => panic!("wire type {wire}"),
            };
            all.push((key >> 3, data[..size].to_vec()));
            data = &data[size..];
        }
        all
    }

    #[test]
    fn what_is_written_reads_back() {
        let mut file = version(1.5);
        file.extend(scalars(2.5, 300, &[("loss/train", 0.25), ("accuracy", 0.5)]));
        let mut events = Vec::new();
        let mut rest = file.as_slice();
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            assert_eq!(rest[8..12], masked_crc(&rest[..8]).to_le_bytes());
            let data = &rest[12..12 + length];
            assert_eq!(rest[12 + length..16 + length], masked_crc(data).to_le_bytes());
            events.push(fields(data));
            rest = &rest[16 + length..];
        }
        assert_eq!(events[0], [(1, 1.5f64.to_le_bytes().to_vec()), (3, b"brain.Event:2".to_vec())]);
        assert_eq!(events[1][..2], [(1, 2.5f64.to_le_bytes().to_vec()), (2, 300u64.to_le_bytes().to_vec())]);
        let values = fields(&events[1][2].1);
        assert_eq!(fields(&values[0].1), [(1, b"loss/train".to_vec()), (2, 0.25f32.to_le_bytes().to_vec())]);
        assert_eq!(fields(&values[1].1), [(1, b"accuracy".to_vec()), (2, 0.5f32.to_le_bytes().to_vec())]);
    }
}
