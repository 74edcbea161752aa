//! How much stack the programs take at most, worked out from the object as the kernel does it: a frame for each function,
//! rounded up, along the deepest chain of calls.
//!
//! The verifier refuses more than 512 bytes, but not every kernel counts the same: 6.1 rounds each frame up to 32 bytes, 6.12
//! to 16 where programs are compiled to machine code. What loads on a new kernel may not load on an old one.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SymbolKind};

/// `MAX_BPF_STACK`
pub const STACK_BYTES_MAX: u32 = 512;
/// What older kernels round a frame up to.
const FRAME_STEP: u32 = 32;
/// `BPF_PSEUDO_CALL`, in the source register of a call.
const LOCAL_CALL: u8 = 1;
const CALL: u8 = 0x85;
/// `BPF_ALU64 | BPF_ADD | BPF_K`
const ADD: u8 = 0x07;
/// `BPF_REG_10`: the frame pointer.
const FRAME_POINTER: u8 = 10;

/// A function: where it is (section, then first instruction and the one after its last), its frame, whom it calls.
struct Function {
    name: String,
    section: usize,
    begin: u64,
    end: u64,
    frame: u32,
    /// Section and instruction of each callee.
    calls: Vec<(usize, u64)>,
}

/// The deepest chain of calls of each program: bytes, and who calls whom.
///
/// # Errors
/// When the object is not one the kernel would load.
pub fn deepest(elf: &[u8]) -> Result<BTreeMap<String, (u32, String)>> {
    let file = object::File::parse(elf).context("read the object")?;
    let mut functions = Vec::new();
    for symbol in file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0) {
        let index = symbol.section_index().context("a function without a section")?;
        let section = file.section_by_index(index)?;
        let code = section.data()?;
        let (begin, end) = (symbol.address(), symbol.address() + symbol.size());
        let relocations: BTreeMap<u64, RelocationTarget> =
            section.relocations().map(|(at, relocation)| (at, relocation.target())).collect();
        let mut function = Function {
            name: symbol.name()?.to_owned(),
            section: index.0,
            begin: begin / 8,
            end: end / 8,
            frame: 1,
            calls: Vec::new(),
        };
        for at in (begin..end).step_by(8) {
            let instruction =
                code.get(at as usize..at as usize + 8).context("a function beyond its section")?;
            function.frame = function.frame.max(reach(instruction));
            if instruction[0] == CALL && instruction[1] >> 4 == LOCAL_CALL {
                let offset = i64::from(i32::from_le_bytes(instruction[4..8].try_into()?));
                let target = match relocations.get(&at) {
                    // Relative to the section's beginning, as if it were called from before it.
                    Some(RelocationTarget::Symbol(symbol)) => {
                        let symbol = file.symbol_by_index(*symbol)?;
                        let section = symbol.section_index().context("a call to nowhere")?;
                        (section.0, symbol.address() as i64 / 8 + offset + 1)
                    }
                    _ => (index.0, at as i64 / 8 + offset + 1),
                };
                function.calls.push((target.0, u64::try_from(target.1).context("a call to nowhere")?));
            }
        }
        functions.push(function);
    }
    let programs = functions.iter().filter(|function| function.name.starts_with("dw_"));
    programs.map(|program| Ok((program.name.clone(), depth(program, &functions, 0)?))).collect()
}

/// How far below the frame pointer an instruction reaches, 0 when it does not.
fn reach(instruction: &[u8]) -> u32 {
    let (class, destination, source) = (instruction[0] & 7, instruction[1] & 15, instruction[1] >> 4);
    let offset = i32::from(i16::from_le_bytes([instruction[2], instruction[3]]));
    let immediate = i32::from_le_bytes([instruction[4], instruction[5], instruction[6], instruction[7]]);
    let below = match class {
        // Loads name their base as source, stores as destination.
        1 if source == FRAME_POINTER => offset,
        2 | 3 if destination == FRAME_POINTER => offset,
        // An address on the stack: a copy of the frame pointer, then this. Other small subtractions look the same, which
        // can only make the answer larger.
        _ if instruction[0] == ADD => immediate,
        _ => 0,
    };
    if (-(STACK_BYTES_MAX as i32)..0).contains(&below) { below.unsigned_abs() } else { 0 }
}

fn depth(function: &Function, functions: &[Function], level: u32) -> Result<(u32, String)> {
    ensure!(level < 8, "{} is called eight deep, which no kernel loads", function.name);
    let own = function.frame.next_multiple_of(FRAME_STEP);
    let mut deepest = (0, String::new());
    for (section, at) in &function.calls {
        let callee = functions
            .iter()
            .find(|callee| callee.section == *section && (callee.begin..callee.end).contains(at))
            .with_context(|| format!("{} calls nobody known", function.name))?;
        let (bytes, chain) = depth(callee, functions, level + 1)?;
        if bytes > deepest.0 {
            deepest = (bytes, format!(" > {chain}"));
        }
    }
    Ok((own + deepest.0, format!("{} {own}{}", function.name, deepest.1)))
}
