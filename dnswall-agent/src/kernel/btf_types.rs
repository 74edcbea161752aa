//! Takes the bytes of a kernel's type information (BTF), gives the offset of a member by the names of both.
//!
//! Only structs and unions are read; of everything else only how long it is. Every read is bounded: bytes that are
//! not BTF give an error that says which field failed.

use std::collections::HashMap;

use anyhow::{Context as _, Result, bail};

/// How deep nameless structs are followed into each other.
const NESTING_MAX: u32 = 8;
/// The first two bytes, in the byte order of the machine.
const MAGIC: u16 = 0xeb9f;
const HEADER_BYTES: usize = 24;
const TYPE_BYTES: usize = 12;
const MEMBER_BYTES: usize = 12;

const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;

/// The structs and unions of a BTF blob.
pub struct Types<'a> {
    strings: &'a [u8],
    /// By type id.
    composites: HashMap<u32, Composite<'a>>,
}

/// A struct or union.
struct Composite<'a> {
    name: u32,
    /// Whether member offsets share their word with a bit-field size.
    packed_offsets: bool,
    members: &'a [u8],
}

impl<'a> Types<'a> {
    /// Reads the whole blob, as `/sys/kernel/btf/vmlinux` holds it.
    ///
    /// # Errors
    /// When it is not BTF of this machine, or ends too early.
    pub fn read(blob: &'a [u8]) -> Result<Self> {
        let magic = blob.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes));
        if magic != Some(MAGIC) {
            bail!("this is no type information of this machine's (magic {magic:x?}, not {MAGIC:x})");
        }
        let header = usize_at(blob, 4).context("read the header's length")?;
        if header < HEADER_BYTES {
            bail!("the header is {header} bytes long, less than {HEADER_BYTES}");
        }
        let section = |field: usize, name: &str| -> Result<&'a [u8]> {
            let start = usize_at(blob, field).and_then(|offset| offset.checked_add(header));
            let length = usize_at(blob, field + 4);
            let range = start.zip(length).and_then(|(start, length)| Some(start..start.checked_add(length)?));
            range.and_then(|range| blob.get(range)).with_context(|| format!("the {name} are not all there"))
        };
        let strings = section(16, "strings")?;
        let composites = composites(section(8, "types")?)?;
        Ok(Self { strings, composites })
    }

    /// The offset in bits of the first of `members` that a struct of this name has, also inside nameless members.
    pub fn member_offset_bits(&self, structure: &str, members: &[&str]) -> Option<u32> {
        self.composites
            .values()
            .filter(|found| self.name(found.name) == structure.as_bytes())
            .find_map(|found| members.iter().find_map(|member| self.search(found, member, NESTING_MAX)))
    }

    fn search(&self, composite: &Composite<'a>, wanted: &str, depth: u32) -> Option<u32> {
        composite.members.chunks_exact(MEMBER_BYTES).find_map(|member| {
            let (name, kind, offset) = (u32_at(member, 0)?, u32_at(member, 4)?, u32_at(member, 8)?);
            let offset = if composite.packed_offsets { offset & 0x00ff_ffff } else { offset };
            let name = self.name(name);
            if name == wanted.as_bytes() {
                return Some(offset);
            }
            let inner = self.composites.get(&kind).filter(|_| name.is_empty() && depth > 0)?;
            offset.checked_add(self.search(inner, wanted, depth - 1)?)
        })
    }

    /// The string at this offset, without its final zero.
    fn name(&self, offset: u32) -> &'a [u8] {
        let rest = self.strings.get(offset as usize..).unwrap_or_default();
        rest.split(|byte| *byte == 0).next().unwrap_or_default()
    }
}

/// Walks all types; ids count from 1.
fn composites(mut rest: &[u8]) -> Result<HashMap<u32, Composite<'_>>> {
    let mut composites = HashMap::new();
    let mut id = 0;
    while !rest.is_empty() {
        id += 1;
        let (name, info) =
            u32_at(rest, 0).zip(u32_at(rest, 4)).with_context(|| format!("type {id} is cut off"))?;
        let (count, kind) = (info as usize & 0xffff, info >> 24 & 0x1f);
        let tail = tail_bytes(kind, count).with_context(|| format!("type {id} is of unknown kind {kind}"))?;
        let members =
            rest.get(TYPE_BYTES..TYPE_BYTES + tail).with_context(|| format!("type {id} is cut off"))?;
        if matches!(kind, KIND_STRUCT | KIND_UNION) {
            composites.insert(id, Composite { name, packed_offsets: info >> 31 != 0, members });
        }
        rest = &rest[TYPE_BYTES + tail..];
    }
    Ok(composites)
}

/// What follows a type's first twelve bytes, by kind (linux/btf.h, all kinds up to 6.18).
fn tail_bytes(kind: u32, count: usize) -> Option<usize> {
    Some(match kind {
        // PTR, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FLOAT, TYPE_TAG
        2 | 7..=12 | 16 | 18 => 0,
        // INT, VAR, DECL_TAG
        1 | 14 | 17 => 4,
        // ARRAY
        3 => 12,
        KIND_STRUCT | KIND_UNION => count * MEMBER_BYTES,
        // ENUM, FUNC_PROTO
        6 | 13 => count * 8,
        // DATASEC, ENUM64
        15 | 19 => count * 12,
        _ => return None,
    })
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

fn usize_at(bytes: &[u8], offset: usize) -> Option<usize> {
    usize::try_from(u32_at(bytes, offset)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct outer { int a; struct { int b; int c; }; }` as BTF; `a` and `b` of no interest are type 0.
    fn blob() -> Vec<u8> {
        let strings = b"\0outer\0a\0b\0c\0";
        let member = |name: u32, kind: u32, bits: u32| [name, kind, bits];
        let mut types: Vec<u32> = vec![0, KIND_STRUCT << 24 | 2, 8];
        types.extend(member(9, 0, 0));
        types.extend(member(11, 0, 32));
        types.extend([1, KIND_STRUCT << 24 | 2, 12]);
        types.extend(member(7, 0, 0));
        types.extend(member(0, 1, 32));
        let bytes = types.len() as u32 * 4;
        let mut blob = vec![];
        blob.extend(MAGIC.to_ne_bytes());
        blob.extend([1, 0]);
        for word in [HEADER_BYTES as u32, 0, bytes, bytes, strings.len() as u32] {
            blob.extend(word.to_ne_bytes());
        }
        types.iter().for_each(|word| blob.extend(word.to_ne_bytes()));
        blob.extend(strings);
        blob
    }

    #[test]
    fn members_are_found_also_inside_nameless_ones() {
        let blob = blob();
        let types = Types::read(&blob).unwrap();
        assert_eq!(types.member_offset_bits("outer", &["a"]), Some(0));
        assert_eq!(types.member_offset_bits("outer", &["gone", "c"]), Some(64));
        assert_eq!(types.member_offset_bits("outer", &["gone"]), None);
        assert_eq!(types.member_offset_bits("other", &["a"]), None);
    }

    #[test]
    fn no_prefix_of_a_blob_panics() {
        let blob = blob();
        for length in 0..blob.len() {
            assert!(Types::read(&blob[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn this_kernels_own_types_are_read() {
        let blob = std::fs::read("/sys/kernel/btf/vmlinux").unwrap();
        let types = Types::read(&blob).unwrap();
        for (structure, member) in
            [("task_struct", "cgroups"), ("css_set", "dfl_cgrp"), ("inode", "i_ino"), ("file", "f_inode")]
        {
            assert!(types.member_offset_bits(structure, &[member]).is_some(), "{structure}.{member}");
        }
    }
}
