//! What the compiler must not see through, so that the kernel's verifier can.

/// The same number, of which the optimiser knows nothing any more. Two uses:
///
/// * arithmetic in place of a comparison stays arithmetic: turned back into one branch a key, the verifier would walk
///   every combination of branches of every level;
/// * a loop whose counter goes through here is not unrolled; the verifier still knows the counter's value in every
///   round, because adding zero to a constant is a constant.
#[inline(always)]
pub fn opaque(value: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let mut value = value;
        // SAFETY: an instruction that names one register and touches no memory.
        unsafe { core::arch::asm!("{0} += 0", inout(reg) value, options(nomem, nostack)) };
        value
    }
    #[cfg(not(target_arch = "bpf"))]
    value
}

/// The next value of a loop counter, for a loop that must not be unrolled.
#[inline(always)]
pub fn next(counter: usize) -> usize {
    opaque(counter as u64 + 1) as usize
}

/// The same number, of which the verifier knows nothing any more: `unknown`, an [`unbounded`] one, is added and taken away again. For a number
/// it learnt from a comparison, so that it does not walk what follows once for every outcome.
#[inline(always)]
pub fn forget(value: u64, unknown: u64) -> u64 {
    opaque(opaque(value.wrapping_add(unknown)).wrapping_sub(unknown))
}

/// A number of which the verifier knows nothing at all, made of one that it knows to be a 32-bit one: with such a one a sum
/// keeps its bounds, and what went through [`forget`] would still tell where it came from to a verifier that compares bounds
/// (6.1's all of them in programs with functions, 6.12's no longer).
#[inline(always)]
pub fn unbounded(value: u32) -> u64 {
    opaque(value as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// All bits for every number but 0, which has none; without a branch. `unknown` as for [`forget`]: where a verifier knows that
/// only these two are possible (from 6.18), it walks on from each.
#[inline(always)]
pub fn mask(number: u64, unknown: u64) -> u64 {
    forget(not_zero(number).wrapping_neg(), unknown)
}

/// 1 for every number but 0, without a branch.
#[inline(always)]
pub fn not_zero(value: u64) -> u64 {
    opaque(opaque(value | value.wrapping_neg()) >> 63)
}
