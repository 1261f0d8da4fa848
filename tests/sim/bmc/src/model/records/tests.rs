// SPDX-License-Identifier: MIT OR Apache-2.0
use super::*;

fn repository() -> Repository {
    let body = |n| Body::Other { kind: 0xc1, bytes: vec![n; 20] };
    Repository::new([body(1), body(2), body(3)], 1000)
}

fn get(r: &mut Repository, resv: u16, id: u16, offset: u8, count: u8) -> Answer {
    let [r0, r1] = resv.to_le_bytes();
    let [i0, i1] = id.to_le_bytes();
    r.get(&[r0, r1, i0, i1, offset, count], 1000)
}

const C5: CompletionCode = CompletionCode::RESERVATION_CANCELLED;

#[test]
fn a_new_reservation_ends_the_one_before() {
    let mut r = repository();
    assert_eq!(get(&mut r, 0, 1, 5, 4), Err(C5));
    let first = r.reserve();
    assert_eq!(get(&mut r, first, 1, 5, 4), Ok(vec![2, 0, 1, 1, 1, 1]));
    let second = r.reserve();
    assert_ne!(first, second);
    assert_eq!(get(&mut r, first, 1, 5, 4), Err(C5));
    assert!(get(&mut r, second, 1, 5, 4).is_ok());
    // From the start of a record none is needed.
    assert_eq!(get(&mut r, first, 1, 0, 2), Ok(vec![2, 0, 1, 0]));
}

#[test]
fn reservation_ids_skip_zero() {
    let mut reservation = Reservation { last: 0xffff, valid: false };
    assert_eq!(reservation.take(), 1);
}

#[test]
fn every_change_ends_the_reservation() {
    let [add, delete, clear, change]: [fn(&mut Repository, u16); 4] = [
        |r, _| {
            r.add(&[0, 0, 0x51, 0xc1, 1, 9], 1000).unwrap();
        },
        |r, id| {
            let [r0, r1] = id.to_le_bytes();
            r.delete(&[r0, r1, 2, 0], 1000).unwrap();
        },
        |r, id| {
            let [r0, r1] = id.to_le_bytes();
            assert_eq!(r.clear(&[r0, r1, b'C', b'L', b'R', 0xaa], 1000), Ok(true));
        },
        |r, _| r.change_after(0, 1000),
    ];
    for change in [add, delete, clear, change] {
        let mut r = repository();
        let before = r.times();
        let id = r.reserve();
        change(&mut r, id);
        assert_eq!(get(&mut r, id, 1, 5, 1), Err(C5));
        assert!(r.times() > before);
    }
}

#[test]
fn a_walk_is_cut_by_a_change_in_its_middle() {
    let mut r = repository();
    let id = r.reserve();
    r.change_after(2, 1000);
    assert!(get(&mut r, id, 1, 5, 1).is_ok());
    assert!(get(&mut r, id, 2, 5, 1).is_ok());
    assert_eq!(get(&mut r, id, 3, 5, 1), Err(C5));
    assert_eq!(r.len(), 4);
    let id = r.reserve();
    assert_eq!(get(&mut r, id, 1, 5, 1), Ok(vec![4, 0, 1]));
    r.change_after(0, 1000);
    assert_eq!(r.len(), 3);
}

#[test]
fn ends_of_the_list_and_of_a_record() {
    let mut r = repository();
    assert_eq!(get(&mut r, 0, 0, 0, 2), Ok(vec![2, 0, 1, 0]));
    assert_eq!(get(&mut r, 0, 0xffff, 0, 2), Ok(vec![0xff, 0xff, 3, 0]));
    assert_eq!(get(&mut r, 0, 9, 0, 2), Err(CompletionCode::NOT_PRESENT));
    let id = r.reserve();
    assert_eq!(get(&mut r, id, 1, 25, 1), Err(CompletionCode::OUT_OF_RANGE));
    assert_eq!(get(&mut r, id, 1, 24, 2), Err(CompletionCode::CANNOT_RETURN_BYTES));
    assert_eq!(get(&mut r, id, 1, 24, 0xff), Ok(vec![2, 0, 1]));
}

#[test]
fn records_are_added_in_parts() {
    let mut r = repository();
    let id = r.reserve();
    let [r0, r1] = id.to_le_bytes();
    let first = r.partial_add(&[r0, r1, 0, 0, 0, 0, 0, 0, 0x51, 0xc1, 3], 1000).unwrap();
    assert_eq!(first, 4);
    assert_eq!(r.partial_add(&[r0, r1, 4, 0, 4, 0, 7], 1000), Err(CompletionCode::OUT_OF_RANGE));
    let first = r.partial_add(&[r0, r1, 0, 0, 0, 0, 0, 0, 0x51, 0xc1, 3], 1000).unwrap();
    let [i0, i1] = first.to_le_bytes();
    let last = r.partial_add(&[r0, r1, i0, i1, 5, 1, 7, 8, 9], 1000);
    assert_eq!(last, Ok(first));
    assert_eq!(r.len(), 4);
    assert_eq!(
        get(&mut r, 0, first, 0, 0xff),
        Ok(vec![0xff, 0xff, i0, i1, 0x51, 0xc1, 3, 7, 8, 9])
    );
    assert_eq!(r.add(&[0, 0, 0x51, 0xc1, 2, 9], 1000), Err(LENGTH_MISMATCH));
}

#[test]
fn a_full_repository_refuses() {
    let mut r = repository();
    let mut record = vec![0, 0, 0x51, 0xc1, 255];
    record.resize(MAX_LEN, 0);
    let added = (0..1000).take_while(|_| r.add(&record, 1000).is_ok()).count();
    assert_eq!(added, (CAPACITY - 75) / MAX_LEN);
    assert_eq!(r.add(&record, 1000), Err(CompletionCode::OUT_OF_SPACE));
}
