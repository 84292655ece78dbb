//! Whole numbers, however a client's language writes them (protocol.md, 2).

use serde_json::value::RawValue;

/// Digits of the largest number there can be.
const MAX_DIGITS: usize = 39;

/// The whole number that a value is, also where it is written as a float (`50.0`, `5e1`, `1.7e12`, `-0`).
///
/// It is read digit by digit, and never as a float of the machine: beyond 2^53 that would be another number. `None` for
/// anything else: a fraction, a number that no 128 bits hold, a value that is no number.
#[must_use]
pub fn whole_number(raw: &RawValue) -> Option<i128> {
    let text = raw.get();
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let (sign, text) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text),
    };
    if !text.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    let (decimal, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (before, behind) = decimal.split_once('.').unwrap_or((decimal, ""));
    let digits = [before, behind].concat();
    let digits = digits.trim_start_matches('0');
    let significant = digits.trim_end_matches('0');
    if significant.is_empty() {
        return Some(0);
    }
    // An exponent too large to be read belongs to a number too large, or too small, to be one of ours.
    let exponent: i64 = exponent.parse().ok()?;
    let dropped = digits.len() - significant.len();
    let zeros = exponent
        .checked_add(i64::try_from(dropped).ok()?)?
        .checked_sub(i64::try_from(behind.len()).ok()?)?;
    let zeros = usize::try_from(zeros).ok()?;
    if significant.len().checked_add(zeros)? > MAX_DIGITS {
        return None;
    }
    [sign, significant, &"0".repeat(zeros)]
        .concat()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<i128> {
        whole_number(&RawValue::from_string(text.to_owned()).unwrap())
    }

    #[test]
    fn a_whole_number_may_be_written_as_a_float() {
        for (text, number) in [
            ("50", 50),
            ("50.0", 50),
            ("50.000", 50),
            ("5e1", 50),
            ("5E+1", 50),
            ("500e-1", 50),
            ("0.5e2", 50),
            ("1.7e12", 1_700_000_000_000),
            ("1.795000e+12", 1_795_000_000_000),
            ("0", 0),
            ("-0", 0),
            ("-0.0", 0),
            ("0e400", 0),
            ("0.0e-99999999999999999999", 0),
            ("-7", -7),
            ("-7.0", -7),
            // Not to be read by way of a float: 2^53 + 1, and the largest of 64 bits.
            ("9007199254740993.0", 9_007_199_254_740_993),
            ("18446744073709551615", i128::from(u64::MAX)),
            ("18446744073709551615.0", i128::from(u64::MAX)),
            ("1844674407370955161.5e1", i128::from(u64::MAX)),
        ] {
            assert_eq!(read(text), Some(number), "{text}");
        }
    }

    #[test]
    fn what_is_no_whole_number_is_none() {
        for text in [
            "50.5",
            "5e-1",
            "0.1",
            "1e400",
            "1e39",
            "1e99999999999999999999",
            "1e-99999999999999999999",
            "\"50\"",
            "null",
            "true",
            "[1]",
            "{}",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(
            read(&["0.", &"0".repeat(60_000), "1e60001"].concat()),
            Some(1)
        );
        assert_eq!(read(&"9".repeat(60_000)), None);
    }
}
