//! Alert ids in what was received: takes text in any format, gives the ids that stand in it, in order.

/// Every UUID of version 7 in a text, as an alert's id is written.
pub fn ids(text: &str) -> Vec<String> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut start = 0;
    while start + LENGTH <= bytes.len() {
        let part = &bytes[start..start + LENGTH];
        if is_id(part) {
            found.push(String::from_utf8_lossy(part).into_owned());
            start += LENGTH;
        } else {
            start += 1;
        }
    }
    found
}

fn is_id(part: &[u8]) -> bool {
    part.iter().enumerate().all(|(place, byte)| match place {
        8 | 13 | 18 | 23 => *byte == b'-',
        14 => *byte == b'7',
        _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(byte),
    })
}

const LENGTH: usize = 36;

#[cfg(test)]
mod tests {
    use super::ids;

    #[test]
    fn ids_are_found_in_any_text() {
        let text = "{\"id\":\"0195519e-9200-7000-8000-000000000001\"} externalId=0195519e-9200-7abc-8000-0000000000ff 1";
        assert_eq!(
            ids(text),
            ["0195519e-9200-7000-8000-000000000001", "0195519e-9200-7abc-8000-0000000000ff"]
        );
        // Version 4, capitals, too short.
        let none = "0195519e-9200-4000-8000-000000000001 0195519E-9200-7000-8000-00000000000F 0195519e-9200-7000-8000-00";
        assert_eq!(ids(none), Vec::<String>::new());
    }
}
