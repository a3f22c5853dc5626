//! Arguments of a call, read exactly as the ABI writes them.

use std::iter::repeat_n;

use alloy_dyn_abi::{DynSolType, DynSolValue};

/// Reads arguments of the types of a tuple. What is not written as an encoder writes it is not read: contracts differ in
/// what they make of it.
pub(super) fn decode(parameters: &DynSolType, data: &[u8]) -> Option<Vec<DynSolValue>> {
    let types = parameters.as_tuple()?;
    // First along the data, once: offsets that all lead to one place would have alloy read it as often as they say.
    if sequence(types.iter(), data)? != data.len() {
        return None;
    }
    if types.is_empty() {
        return Some(Vec::new());
    }
    let value = parameters.abi_decode_params(data).ok()?;
    match value {
        // Addresses and truths that are wider than their types, and padding that is not zero, come out otherwise.
        DynSolValue::Tuple(values) if values.iter().all(fits) => {
            let value = DynSolValue::Tuple(values);
            if value.abi_encode_params() == data { value.as_tuple().map(<[_]>::to_vec) } else { None }
        }
        _ => None,
    }
}

/// Whether a value is one of its type: alloy reads and writes all of a word.
fn fits(value: &DynSolValue) -> bool {
    match value {
        DynSolValue::Uint(number, bits) => number.bit_len() <= *bits,
        DynSolValue::Int(number, bits) => usize::try_from(number.bits()).is_ok_and(|needed| needed <= *bits),
        DynSolValue::FixedBytes(word, size) => word[*size..].iter().all(|byte| *byte == 0),
        DynSolValue::Array(items) | DynSolValue::FixedArray(items) | DynSolValue::Tuple(items) => {
            items.iter().all(fits)
        }
        _ => true,
    }
}

/// How long the values of these types are, one behind the other, each tail where the one before it ends.
fn sequence<'a>(types: impl Iterator<Item = &'a DynSolType> + Clone, data: &[u8]) -> Option<usize> {
    let mut tail = types.clone().try_fold(0usize, |sum, kind| sum.checked_add(head(kind)?))?;
    let mut at = 0;
    for kind in types {
        if kind.is_dynamic() {
            if number(data, at)? != tail {
                return None;
            }
            tail = tail.checked_add(dynamic(kind, data.get(tail..)?)?)?;
        }
        at += head(kind)?;
    }
    (tail <= data.len()).then_some(tail)
}

/// How long a type is among the others: itself, or where it is.
fn head(kind: &DynSolType) -> Option<usize> {
    let words = if kind.is_dynamic() { 1 } else { kind.minimum_words() };
    // A type of no size could be there any number of times.
    words.checked_mul(32).filter(|size| *size > 0)
}

/// How long the value of a type is that is not among the others.
fn dynamic(kind: &DynSolType, data: &[u8]) -> Option<usize> {
    let behind = || data.get(32..);
    let size = match kind {
        DynSolType::Bytes | DynSolType::String => 32 + number(data, 0)?.div_ceil(32) * 32,
        DynSolType::Array(item) => 32 + sequence(repeat_n(&**item, items(number(data, 0)?, data)?), behind()?)?,
        DynSolType::FixedArray(item, length) => sequence(repeat_n(&**item, items(*length, data)?), data)?,
        DynSolType::Tuple(types) => sequence(types.iter(), data)?,
        _ => return None,
    };
    (size <= data.len()).then_some(size)
}

/// A number of items, if there can be so many: each takes a word at least.
fn items(length: usize, data: &[u8]) -> Option<usize> {
    (length <= data.len() / 32).then_some(length)
}

/// A length or an offset.
fn number(data: &[u8], at: usize) -> Option<usize> {
    let (zeros, number) = data.get(at..)?.first_chunk::<32>()?.split_last_chunk::<4>()?;
    zeros.iter().all(|byte| *byte == 0).then_some(u32::from_be_bytes(*number) as usize)
}

#[cfg(test)]
mod tests {
    use alloy_primitives::{Address, B256, U256};
    use proptest::prelude::*;

    use super::*;

    fn any_type() -> impl Strategy<Value = DynSolType> {
        let leaf = prop_oneof![
            Just(DynSolType::Address),
            Just(DynSolType::Bool),
            Just(DynSolType::Uint(256)),
            Just(DynSolType::Uint(48)),
            Just(DynSolType::Int(16)),
            Just(DynSolType::FixedBytes(4)),
            Just(DynSolType::Bytes),
            Just(DynSolType::String),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                inner.clone().prop_map(|item| DynSolType::Array(Box::new(item))),
                (inner.clone(), 1usize..3).prop_map(|(item, length)| DynSolType::FixedArray(Box::new(item), length)),
                prop::collection::vec(inner, 1..3).prop_map(DynSolType::Tuple),
            ]
        })
    }

    /// Some value of the type, by turns from the seed.
    fn value(kind: &DynSolType, seed: &mut impl Iterator<Item = u8>) -> DynSolValue {
        let mut next = || seed.next().unwrap();
        match kind {
            DynSolType::Address => DynSolValue::Address(Address::repeat_byte(next())),
            DynSolType::Bool => DynSolValue::Bool(next() % 2 == 1),
            DynSolType::Uint(bits) => DynSolValue::Uint(U256::from(next()), *bits),
            DynSolType::Int(bits) => DynSolValue::Int((-i64::from(next())).try_into().unwrap(), *bits),
            DynSolType::FixedBytes(size) => {
                DynSolValue::FixedBytes(B256::right_padding_from(&vec![next(); *size]), *size)
            }
            DynSolType::Bytes => DynSolValue::Bytes(vec![next(); usize::from(next() % 70)]),
            DynSolType::String => DynSolValue::String("x".repeat(usize::from(next() % 70))),
            DynSolType::Array(item) => {
                let length = next() % 4;
                DynSolValue::Array((0..length).map(|_| value(item, seed)).collect())
            }
            DynSolType::FixedArray(item, length) => {
                DynSolValue::FixedArray((0..*length).map(|_| value(item, seed)).collect())
            }
            DynSolType::Tuple(types) => DynSolValue::Tuple(types.iter().map(|kind| value(kind, seed)).collect()),
            other => panic!("{other:?}"),
        }
    }

    proptest! {
        #[test]
        fn what_an_encoder_writes_is_read_and_nothing_else(
            types in prop::collection::vec(any_type(), 1..4), seed: [u8; 32], at: prop::sample::Index, bit in 0u32..8,
        ) {
            let kind = DynSolType::Tuple(types);
            let written = value(&kind, &mut seed.into_iter().cycle());
            let data = written.abi_encode_params();
            let DynSolValue::Tuple(values) = written else { unreachable!() };
            prop_assert_eq!(decode(&kind, &data), Some(values.clone()));
            prop_assert_eq!(decode(&kind, &[&data[..], &[0]].concat()), None);
            prop_assert_eq!(decode(&kind, &[&data[..], &[0; 32]].concat()), None);
            prop_assert_eq!(decode(&kind, &data[..data.len() - 1]), None);
            // Any other data is another value, or none.
            let mut other = data;
            let at = at.index(other.len());
            other[at] ^= 1 << bit;
            prop_assert_ne!(decode(&kind, &other), Some(values));
        }

        #[test]
        fn nothing_panics(kind in any_type(), data: Vec<u8>) {
            let _ = decode(&DynSolType::Tuple(vec![kind]), &data);
        }
    }

    #[test]
    fn a_word_holds_no_more_than_its_type() {
        let one =
            |kind: &str, word: [u8; 32]| decode(&DynSolType::parse(&format!("({kind})")).unwrap(), &word).is_some();
        let at = |byte: usize, value: u8| {
            let mut word = [0; 32];
            word[byte] = value;
            word
        };
        let negative = |last: usize| {
            let mut word = [0xff; 32];
            word[last] = 0x7f;
            word
        };
        for (kind, good, bad) in [
            ("uint48", at(26, 0xff), at(25, 1)),
            ("uint160", at(12, 0xff), at(11, 1)),
            ("uint8", at(31, 0xff), at(30, 1)),
            ("int16", at(30, 0x7f), at(30, 0x80)),
            ("int16", [0xff; 32], negative(30)),
            ("address", at(12, 0xff), at(11, 1)),
            ("bool", at(31, 1), at(31, 2)),
            ("bytes4", at(3, 1), at(4, 1)),
            ("function", at(23, 1), at(24, 1)),
        ] {
            assert!(one(kind, good) && !one(kind, bad), "{kind}");
        }
        let array = DynSolType::parse("(uint8[1])").unwrap();
        assert!(decode(&array, &at(31, 1)).is_some() && decode(&array, &at(30, 1)).is_none());
    }

    #[test]
    fn many_offsets_to_one_place_are_not_followed() {
        let kind = DynSolType::parse("(uint256[][])").unwrap();
        let word = |n: usize| B256::from(U256::from(n)).0;
        // An array of 1000 arrays, which are all the last one, of 1000 numbers.
        let mut data = [word(32), word(1000)].concat();
        data.extend((0..1000).flat_map(|_| word(32_000)));
        data.extend(word(1000));
        data.extend([0; 32_000]);
        assert_eq!(decode(&kind, &data), None);
        // And lengths beyond what there is.
        for length in [[0xff; 32], word(u32::MAX as usize), word(1 << 27)] {
            assert_eq!(decode(&kind, &[word(32), length].concat()), None);
        }
        assert_eq!(decode(&DynSolType::Tuple(vec![]), &[]), Some(vec![]));
    }
}
