use super::*;
use crate::model::ClockNote;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const FORMATS: [Format; 2] = [Format::POSTCARD, Format::NUMBERED];

/// What a row is made of, by a seed.
struct Dice(StdRng);

impl Dice {
    fn number(&mut self) -> u64 {
        let bits = self.0.random_range(0..=64);
        if bits == 0 {
            0
        } else {
            self.0.random::<u64>() >> (64 - bits)
        }
    }

    fn text(&mut self) -> Cow<'static, str> {
        let length = self.0.random_range(0..40);
        Cow::Owned((0..length).map(|_| self.0.random::<char>()).collect())
    }

    fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.0.random::<bool>().then(|| make(self))
    }

    fn head(&mut self) -> Head {
        Head {
            record: self.number(),
            seq: self.number(),
            last_id: self.number(),
            time: self.number(),
            users: self.number(),
            conversations: self.number(),
            messages: self.number(),
            format: FORMATS[self.0.random_range(0..2)],
        }
    }

    fn user(&mut self) -> UserRow<'static> {
        UserRow {
            login: self.text(),
            name: self.text(),
            surname: self.maybe(Self::text),
            admin: self.0.random(),
            password_hash: self.text(),
            created_time: self.number(),
            updated_time: self.maybe(Self::number),
            conversations: self.number(),
        }
    }

    fn conversation(&mut self) -> ConversationRow<'static> {
        ConversationRow {
            name: self.text(),
            description: self.maybe(Self::text),
            members: self.number(),
            created_by: self.maybe(Self::number),
            created_time: self.number(),
            updated_time: self.maybe(Self::number),
        }
    }

    fn costs(&mut self) -> CostsRow {
        CostsRow {
            users: std::array::from_fn(|_| self.number()),
        }
    }

    fn counters(&mut self) -> CountersRow {
        CountersRow {
            created: self.number(),
            messages: self.number(),
        }
    }

    fn message(&mut self) -> MessageRow<'static> {
        MessageRow {
            user: self.number(),
            ordinal: self.number(),
            created_time: self.number(),
            updated_time: self.maybe(Self::number),
            nonce: self.maybe(Self::text),
            text: self.text(),
        }
    }

    fn nonce(&mut self) -> NonceRow {
        NonceRow {
            message: self.number(),
            text_hash: self.0.random(),
            deleted_time: self.maybe(Self::number),
        }
    }

    fn token(&mut self) -> TokenRow<'static> {
        TokenRow {
            user: self.number(),
            hash: self.0.random(),
            name: self.text(),
            created_time: self.number(),
            expires_time: self.maybe(Self::number),
            last_used_time: self.maybe(Self::number),
        }
    }
}

/// Writes a row in each format, and reads it again; what is cut off is read without a panic, and what has something behind
/// it is no row.
macro_rules! round_trip {
    ($kind:ty, $row:expr) => {
        let row: $kind = $row;
        for format in FORMATS {
            let bytes = encode(&row, format).unwrap();
            assert_eq!(bytes[0], format.number());
            assert_eq!(decode::<$kind>(&bytes).as_ref(), Ok(&row), "{bytes:?}");
            for length in 0..bytes.len() {
                let _damaged_or_shorter = decode::<$kind>(&bytes[..length]);
            }
        }
        let mut longer = encode(&row, Format::NUMBERED).unwrap();
        longer.push(0);
        assert!(decode::<$kind>(&longer).is_err());
    };
}

#[test]
fn every_kind_of_row_is_read_as_it_was_written_in_every_format() {
    let seed = std::env::var("CHATD_SEED").ok();
    let seed = seed.map_or_else(rand::random, |seed| seed.parse().unwrap());
    println!("CHATD_SEED={seed}");
    let mut dice = Dice(StdRng::seed_from_u64(seed));
    for _ in 0..300 {
        let head = dice.head();
        assert_eq!(Head::from_row(&head.to_row().unwrap()), Ok(head));
        round_trip!(UserRow<'_>, dice.user());
        round_trip!(ConversationRow<'_>, dice.conversation());
        round_trip!(CostsRow, dice.costs());
        round_trip!(CountersRow, dice.counters());
        round_trip!(MessageRow<'_>, dice.message());
        round_trip!(NonceRow, dice.nonce());
        round_trip!(TokenRow<'_>, dice.token());
    }
    round_trip!(ClockNote, ClockNote::default());
}

#[test]
fn a_row_of_a_format_that_does_not_exist_is_refused() {
    let mut bytes = encode(&CountersRow::default(), Format::NEWEST).unwrap();
    for format in [0, Format::NEWEST.number() + 1, u8::MAX] {
        bytes[0] = format;
        assert!(decode::<CountersRow>(&bytes).is_err(), "{format}");
        assert!(Head::from_row(&bytes).is_err(), "{format}");
    }
    assert!(decode::<CountersRow>(&[]).is_err());
}

/// A row as a later chatd of the same format may write it, and as this one may have written it before a field was added.
#[test]
fn a_field_can_be_added_and_left_out() {
    #[derive(Serialize, Encode)]
    #[cbor(array)]
    struct Later {
        #[n(0)]
        created: u64,
        #[n(1)]
        messages: u64,
        #[serde(skip)]
        #[n(3)]
        more: Option<u64>,
        #[serde(skip)]
        #[n(5)]
        most: Option<Vec<Option<u64>>>,
    }
    #[derive(Debug, PartialEq, Deserialize, Decode)]
    #[cbor(array)]
    struct Grown {
        #[n(0)]
        created: u64,
        #[n(1)]
        messages: u64,
        #[serde(skip)]
        #[n(2)]
        added: Option<u64>,
    }
    let later = Later {
        created: 7,
        messages: 5,
        more: Some(u64::MAX),
        most: Some(vec![None, Some(1)]),
    };
    let now = CountersRow {
        created: 7,
        messages: 5,
    };
    let written = encode(&later, Format::NUMBERED).unwrap();
    assert_eq!(decode::<CountersRow>(&written), Ok(now));
    let grown = Grown {
        created: 7,
        messages: 5,
        added: None,
    };
    for format in FORMATS {
        let written = encode(&now, format).unwrap();
        assert_eq!(decode::<Grown>(&written).as_ref(), Ok(&grown), "{format}");
    }
}

/// Bytes that stand on disks: a change of them would leave rows that nobody can read.
#[test]
fn rows_are_written_as_they_always_were() {
    let row = MessageRow {
        user: 300,
        ordinal: 1,
        created_time: 70_000,
        updated_time: None,
        nonce: Some("n".into()),
        text: "hi".into(),
    };
    let postcard: &[u8] = &[1, 0xac, 2, 1, 0xf0, 0xa2, 4, 0, 1, 1, b'n', 2, b'h', b'i'];
    let numbered: &[u8] = &[
        2, 0x86, 0x19, 1, 0x2c, 1, 0x1a, 0, 1, 0x11, 0x70, 0xf6, 0x61, b'n', 0x62, b'h', b'i',
    ];
    assert_eq!(encode(&row, Format::POSTCARD).unwrap(), postcard);
    assert_eq!(encode(&row, Format::NUMBERED).unwrap(), numbered);
}
