// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the heap gives back: in a process of its own, where nobody else maps anything meanwhile.
#![cfg(all(feature = "heap", target_env = "gnu"))]

use kernel_abi::heap::give_back_large_blocks;

#[test]
fn a_block_as_large_as_one_that_was_freed_is_given_back() {
    const BLOCK: usize = 4 << 20;
    give_back_large_blocks();
    drop(vec![1_u8; BLOCK]);
    let block = vec![1_u8; BLOCK];
    let at = block.as_ptr() as usize;
    drop(block);
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let within = |line: &str| {
        let (begin, end) = line.split(' ').next()?.split_once('-')?;
        let number = |text| usize::from_str_radix(text, 16).ok();
        Some((number(begin)?..number(end)?).contains(&at))
    };
    assert!(!maps.lines().any(|line| within(line) == Some(true)), "{maps}");
}
