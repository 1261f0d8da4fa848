// SPDX-License-Identifier: MIT OR Apache-2.0
//! How the C library's heap gives memory back (`mallopt(3)`).

/// Blocks of so many bytes and more are mapped by themselves: what the C library starts with.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 128 * 1024;

/// Has large blocks given back to the kernel whenever they are freed, from here on.
///
/// The GNU C library does so until the first of them is freed, and then takes later ones of that size from the heap, where what is
/// freed stays. A daemon that needs a lot for a moment at its start, as a database does, would keep that for good. Other C
/// libraries are left as they are. For programs that do not need such blocks again and again: each costs a system call.
pub fn give_back_large_blocks() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two numbers, and has no conditions.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
    }
}
