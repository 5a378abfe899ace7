//! Firewall marks that something may use, as command lines name them.

use std::ops::RangeInclusive;

/// `first-last`, each decimal or hexadecimal with 0x, such as `0x2000-0x20ff`. An error is what is wrong with the text, in words.
pub fn mark_range(text: &str) -> Result<RangeInclusive<u32>, String> {
    let number = |text: &str| {
        let text = text.trim();
        let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            Some(digits) => u32::from_str_radix(digits, 16),
            None => text.parse(),
        };
        parsed.map_err(|error| format!("{text:?} is no mark: {error}"))
    };
    let (first, last) = text
        .split_once('-')
        .ok_or_else(|| format!("{text:?} is not first-last, e.g. 0x2000-0x20ff"))?;
    let (first, last) = (number(first)?, number(last)?);
    if first == 0 || first > last {
        return Err(format!(
            "{text:?} must begin at 1 or more and not end before it begins"
        ));
    }
    Ok(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mark_ranges() {
        assert_eq!(mark_range("0x2000-0x20ff"), Ok(0x2000..=0x20ff));
        assert_eq!(mark_range("1-9"), Ok(1..=9));
        for text in ["", "7", "9-1", "0-4", "a-b", "0x1-0x100000000"] {
            assert!(mark_range(text).is_err(), "{text}");
        }
    }
}
