//! The list of a meter's objects (association LN, attribute 2), and how it is kept over a restart.

use std::collections::BTreeMap;

use crate::wire::dlms::{Data, LogicalName, Seq};

/// The most objects of one meter; what a list has beyond is left out.
const MOST: usize = 4096;
/// The most attributes and methods of one object.
const MOST_RIGHTS: usize = 64;
/// What is kept begins with this: its kind and version.
const MARK: &[u8] = b"weir dlms objects 1\n";
/// The class of an association.
const ASSOCIATION: u16 = 15;

/// One object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::meter::dlms) struct Object {
    /// Its class.
    pub(in crate::meter::dlms) class: u16,
    /// The version of its class.
    pub(in crate::meter::dlms) version: u8,
    /// Its name.
    pub(in crate::meter::dlms) name: LogicalName,
    /// What this client may do with its attributes: number and access mode; empty when the list does not say.
    attributes: Vec<(i8, u8)>,
    /// Its methods that this client may call.
    methods: Vec<i8>,
    /// Access modes are bits, as in associations of version 3.
    bits: bool,
}

impl Object {
    /// An object of which nothing but its class is known.
    pub(in crate::meter::dlms) const fn bare(class: u16, name: LogicalName) -> Self {
        Self { class, version: 0, name, attributes: Vec::new(), methods: Vec::new(), bits: false }
    }

    /// The numbers of its attributes.
    pub(in crate::meter::dlms) fn attributes(&self) -> Vec<i8> {
        if self.attributes.is_empty() {
            return super::attributes(self.class, self.version);
        }
        self.attributes.iter().map(|(number, _)| *number).collect()
    }

    /// Whether this client may read an attribute; when the list does not say, it is worth trying.
    pub(in crate::meter::dlms) fn may_read(&self, attribute: i8) -> bool {
        let mode = self.attributes.iter().find(|(number, _)| *number == attribute).map(|(_, mode)| *mode);
        match mode {
            None => self.attributes.is_empty(),
            Some(mode) if self.bits => mode & 1 != 0,
            Some(mode) => matches!(mode, 1 | 3 | 4 | 6),
        }
    }

    /// The methods that this client may call.
    pub(in crate::meter::dlms) fn methods(&self) -> &[i8] {
        &self.methods
    }

    fn of(item: &Data<'_>) -> Option<Self> {
        let fields = item.as_structure()?;
        let rights = fields.get(3).ok().and_then(|rights| rights.as_structure());
        let side = |n: usize| rights.and_then(|rights| rights.get(n).ok()).and_then(|side| side.as_array());
        Some(Self {
            class: fields.get(0).ok()?.as_i64()?.try_into().ok()?,
            version: fields.get(1).ok()?.as_i64()?.try_into().ok()?,
            name: fields.get(2).ok()?.as_obis()?,
            attributes: side(0).map(pairs).unwrap_or_default(),
            methods: side(1).map(pairs).unwrap_or_default().into_iter().filter(|m| m.1 != 0).map(|m| m.0).collect(),
            bits: false,
        })
    }
}

/// Numbers with their access modes.
fn pairs(items: Seq<'_>) -> Vec<(i8, u8)> {
    let pair = |item: Data<'_>| {
        let fields = item.as_structure()?;
        let mode = fields.get(1).ok()?;
        let mode = mode.as_bool().map_or_else(|| mode.as_i64(), |may| Some(may.into()))?;
        Some((fields.get(0).ok()?.as_i64()?.try_into().ok()?, mode.try_into().ok()?))
    };
    items.iter().take(MOST_RIGHTS).filter_map(|item| pair(item.ok()?)).collect()
}

/// All objects of a meter that this client sees.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::meter::dlms) struct Objects {
    objects: Vec<Object>,
    by_name: BTreeMap<[u8; 6], usize>,
}

impl Objects {
    /// Reads attribute 2 of an association; what is no object in it is left out. `None` when it is no list.
    pub(in crate::meter::dlms) fn of(list: &Data<'_>) -> Option<Self> {
        let mut objects: Vec<Object> =
            list.as_array()?.iter().take(MOST).filter_map(|item| Object::of(&item.ok()?)).collect();
        let bits = objects.iter().any(|o| o.class == ASSOCIATION && o.version >= 3);
        objects.iter_mut().for_each(|object| object.bits = bits);
        Some(Self::with(objects))
    }

    /// Objects of which class, version and name are known.
    pub(in crate::meter::dlms) fn bare(objects: Vec<(u16, u8, LogicalName)>) -> Self {
        let object = |(class, version, name)| Object { version, ..Object::bare(class, name) };
        Self::with(objects.into_iter().take(MOST).map(object).collect())
    }

    fn with(objects: Vec<Object>) -> Self {
        let by_name = objects.iter().enumerate().map(|(n, object)| (*object.name.as_bytes(), n)).collect();
        Self { objects, by_name }
    }

    /// The object of this name.
    pub(in crate::meter::dlms) fn find(&self, name: LogicalName) -> Option<&Object> {
        self.by_name.get(name.as_bytes()).and_then(|n| self.objects.get(*n))
    }

    /// All of them, in the meter's order.
    pub(in crate::meter::dlms) fn iter(&self) -> impl Iterator<Item = &Object> {
        self.objects.iter()
    }

    /// How many there are.
    pub(in crate::meter::dlms) fn len(&self) -> usize {
        self.objects.len()
    }

    /// What is kept: the list, and what the meter's firmware was called when it was read.
    pub(in crate::meter::dlms) fn keep(&self, firmware: &str) -> Vec<u8> {
        let firmware = firmware.as_bytes().get(..firmware.len().min(255)).unwrap_or_default();
        let mut out = MARK.to_vec();
        out.push(u8::try_from(firmware.len()).unwrap_or(0));
        out.extend(firmware);
        for object in &self.objects {
            out.extend(object.class.to_be_bytes());
            out.extend([object.version, u8::from(object.bits)]);
            out.extend(object.name.as_bytes());
            out.push(u8::try_from(object.attributes.len()).unwrap_or(0));
            out.extend(object.attributes.iter().flat_map(|(number, mode)| [byte(*number), *mode]));
            out.push(u8::try_from(object.methods.len()).unwrap_or(0));
            out.extend(object.methods.iter().map(|number| byte(*number)));
        }
        out
    }

    /// Reads what was kept; `None` when it is something else or damaged.
    pub(in crate::meter::dlms) fn kept(bytes: &[u8]) -> Option<(Self, String)> {
        let mut rest = bytes.strip_prefix(MARK)?;
        let firmware = String::from_utf8_lossy(counted(&mut rest, 1)?).into_owned();
        let mut objects = Vec::new();
        while !rest.is_empty() {
            let head: [u8; 10] = *rest.first_chunk()?;
            rest = rest.get(10..)?;
            let [c1, c0, version, bits, a, b, c, d, e, f] = head;
            let attributes = counted(&mut rest, 2)?.chunks_exact(2);
            let attributes = attributes.filter_map(|pair| Some((pair.first()?.cast_signed(), *pair.get(1)?)));
            let attributes = attributes.collect();
            let methods = counted(&mut rest, 1)?.iter().map(|number| number.cast_signed()).collect();
            let (class, name) = (u16::from_be_bytes([c1, c0]), LogicalName::from_bytes([a, b, c, d, e, f]));
            objects.push(Object { class, version, name, attributes, methods, bits: bits != 0 });
        }
        Some((Self::with(objects), firmware))
    }
}

const fn byte(number: i8) -> u8 {
    number.cast_unsigned()
}

/// As many items as the next byte says.
fn counted<'b>(rest: &mut &'b [u8], size: usize) -> Option<&'b [u8]> {
    let (count, behind) = rest.split_first()?;
    let (taken, behind) = behind.split_at_checked(usize::from(*count) * size)?;
    *rest = behind;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::dlms::{DataBuf, decode, encode};

    fn entry(class: u16, version: u8, name: [u8; 6], rights: &[(i8, u8)]) -> DataBuf {
        let right = |(number, mode): &(i8, u8)| {
            DataBuf::Structure(vec![DataBuf::Integer(*number), DataBuf::Enum(*mode), DataBuf::Null])
        };
        let method = DataBuf::Structure(vec![DataBuf::Integer(1), DataBuf::Boolean(true)]);
        let rights = DataBuf::Array(rights.iter().map(right).collect());
        DataBuf::Structure(vec![
            DataBuf::LongUnsigned(class),
            DataBuf::Unsigned(version),
            DataBuf::OctetString(name.to_vec()),
            DataBuf::Structure(vec![rights, DataBuf::Array(vec![method])]),
        ])
    }

    fn read(entries: Vec<DataBuf>) -> Objects {
        let bytes = encode(&DataBuf::Array(entries)).unwrap();
        Objects::of(&decode::<Data<'_>>(&bytes).unwrap().0).unwrap()
    }

    const ENERGY: [u8; 6] = [1, 0, 1, 8, 0, 255];

    #[test]
    fn a_list_tells_classes_and_what_may_be_read() {
        let objects = read(vec![entry(3, 0, ENERGY, &[(1, 1), (2, 4), (3, 2)]), DataBuf::Null]);
        let energy = objects.find(LogicalName::from_bytes(ENERGY)).unwrap();
        assert_eq!(
            (objects.len(), energy.class, energy.attributes(), energy.methods()),
            (1, 3, vec![1, 2, 3], &[1i8][..])
        );
        assert_eq!([1, 2, 3, 4].map(|n| energy.may_read(n)), [true, true, false, false]);
    }

    #[test]
    fn in_an_association_of_version_3_access_modes_are_bits() {
        let objects = read(vec![entry(15, 3, [0, 0, 40, 0, 0, 255], &[]), entry(3, 0, ENERGY, &[(2, 0b101), (3, 4)])]);
        let energy = objects.find(LogicalName::from_bytes(ENERGY)).unwrap();
        assert_eq!([2, 3].map(|n| energy.may_read(n)), [true, false]);
    }

    proptest! {
        #[test]
        fn what_is_kept_is_found_again(
            names in prop::collection::vec(any::<([u8; 6], u16, u8)>(), 0..20), firmware in "[ -~]{0,300}",
        ) {
            let entries = names.iter().map(|(name, class, version)| entry(*class, *version, *name, &[(2, 1)]));
            let objects = read(entries.collect());
            let (back, old) = Objects::kept(&objects.keep(&firmware)).unwrap();
            prop_assert_eq!(back, objects);
            prop_assert!(firmware.starts_with(&old));
        }

        #[test]
        fn any_bytes_are_a_kept_list_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Objects::kept(&[MARK, &bytes].concat());
            if let Ok((data, _)) = decode::<Data<'_>>(&bytes) {
                let _ = Objects::of(&data);
            }
        }
    }
}
