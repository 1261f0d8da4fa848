// SPDX-License-Identifier: MIT OR Apache-2.0
//! What usb-gadget-drive has on disk, what its two ends say, and its configurations.

use fuzz_targets::drive_disk::{FILE, HEADER, MAP_PAGE, OTHER_BOOT, SEALED, STATE};
use fuzz_targets::{drive_config, drive_disk::drive_disk, drive_link};
use usb_gadget_drive::arbiter::{Lease, MAX_SHARES, OverlayState, Phase, ShareState, State};
use usb_gadget_drive::link::message::{
    Claim, Drive, DriveState, Failure, FromAgent, Kind, MAX_DRIVES, Order, ToAgent,
};
use usb_gadget_drive::overlay::format::{Header, MapPage};
use usb_gadget_drive::state;

use crate::seed;

pub fn write() {
    overlays();
    states();
    messages();
    configurations();
}

fn disk(name: &str, wanted: &str, mode: u8, bytes: &[u8]) {
    // Zeroes follow anyway.
    let len = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
    seed(drive_disk, "drive_disk", name, wanted, &[&[mode], &bytes[..len]].concat());
}

fn overlays() {
    let header = |size| {
        let (share, blade) = (parsed("rescue"), parsed("blade-3"));
        Header { share, blade, id: 7, generation: 2, size }.encode()
    };
    let good = header(1 << 30);
    let with = |at: usize, byte| {
        let mut bytes = good;
        bytes[at] = byte;
        bytes
    };
    disk("header", "header", HEADER, &good);
    disk("header-magic", "no overlay", HEADER, &with(0, 0));
    disk("header-version", "other version", HEADER, &with(8, 2));
    disk("header-sum", "checksum", HEADER, &with(16, 8));
    disk("header-cluster", "size of a cluster", HEADER | SEALED, &with(40, 12));
    disk("header-size", "size", HEADER, &header(0));
    disk("header-share", "name of the share", HEADER | SEALED, &with(48, 65));
    disk("header-blade", "name of the blade", HEADER | SEALED, &with(120, 0xff));

    let mut page = MapPage::empty();
    page.words[5] = 0b10_01_00;
    disk("page", "map page", MAP_PAGE, &page.encode(2, 7));
    page.words[5] = 0b11;
    disk("page-place", "no map page", MAP_PAGE, &page.encode(2, 7));

    let (damaged, zeroes): (&[u8], &[u8]) = (&[1, 24, 0, 1, 0x55], &[4, 0, 0, 1, 0b10_10]);
    disk("file", "live map", FILE, &[]);
    disk("file-other-boot", "map", FILE | OTHER_BOOT, &[]);
    disk("file-zeroes", "zeroes", FILE, zeroes);
    disk("file-place", "damaged places", FILE, &[4, 0, 0, 1, 0b11]);
    disk("file-header", "damaged header", FILE, &[0, 0, 0, 1, 1]);
    disk("file-epoch", "another overlay", FILE | SEALED, &[0, 16, 0, 1, 2]);
    disk("file-short", "short file", FILE, &[5, 0, 0, 3]);
    disk("file-shorter", "short file", FILE, &[6, 0, 0, 9]);
    disk("file-page", "map", FILE | OTHER_BOOT, damaged);
    disk("file-pages", "damaged map", FILE, &[damaged, &[2], &damaged[1..]].concat());
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Debug>>(name: &str) -> T {
    name.parse().expect("a name")
}

fn states() {
    let lease = Lease { blade: parsed("b"), epoch: 7, since: 1, is_known: false };
    let exclusive =
        ShareState { generation: 2, epoch: 7, lease: Some(lease), ..Default::default() };
    let phases = [Phase::Making, Phase::Ready, Phase::Committing, Phase::Removing];
    let overlays =
        ["b", "c", "d", "e"].into_iter().zip(phases).zip(1..).map(|((blade, phase), id)| {
            (parsed(blade), OverlayState { id, epoch: id, generation: 1, since: 1, phase })
        });
    let private = ShareState { epoch: 4, overlays: overlays.collect(), ..Default::default() };
    let state = State { shares: [(parsed("x"), exclusive), (parsed("p"), private)].into() };
    let bytes = state::encode(&state);
    disk("state", "state", STATE, &bytes);
    let mut damaged = bytes;
    *damaged.last_mut().expect("some bytes") = b' ';
    disk("state-sum", "damaged state", STATE, &damaged);
    disk("state-version", "state of another version", STATE, b"midplane-drive-state 2 0\n{}");
    disk("state-word", "no state", STATE, b"midplane-drive-state x 0\n{}");
    disk("state-none", "no state", STATE, b"midplane-drive-state 1\n{}");
    disk("state-other", "no state", STATE, b"midplane-mux-state 1 0\n{}");
    disk("state-json", "state without sense", STATE | SEALED, b"{\"shares\":{\"a/b\":{}}}");
    for (name, epoch, lease) in [("state-last-epoch", u64::MAX, 1), ("state-epoch", 1, 2)] {
        let lease = format!(r#"{{"blade":"b","epoch":{lease},"since":1,"is_known":true}}"#);
        let share = format!(r#"{{"generation":1,"epoch":{epoch},"lease":{lease}}}"#);
        let json = format!(r#"{{"shares":{{"a":{share}}}}}"#);
        disk(name, "state without sense", STATE | SEALED, json.as_bytes());
    }
}

fn json(message: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(message).expect("names and numbers only")
}

fn messages() {
    let line = |name: &str, wanted: &str, line: &[u8]| {
        let bytes = [&[6, b'~'], line, b"\n"].concat();
        seed(drive_link, "drive_link", name, wanted, &bytes);
    };
    let drive = |reason: Option<&str>| Drive {
        name: "a".into(),
        local: false,
        kind: Kind::Cd,
        writable: false,
        lun: 9,
        state: DriveState::Away,
        reason: reason.map(str::to_owned),
    };
    let drives = vec![drive(Some("gone\u{1b}[2J"))];
    let (protocol, version, udc) = (1, "0.1.0\u{7f}".to_owned(), "dummy_udc.0".to_owned());
    let many = FromAgent::Drives { drives: vec![drive(None); MAX_DRIVES + 1] };
    let failure = Some(Failure { is_busy: true, reason: "it is \"mounted\"".to_owned() });
    line("hello", "hello", &json(&FromAgent::Hello { protocol, version, udc, drives }));
    line("drives", "drives", &json(&FromAgent::Drives { drives: vec![drive(None)] }));
    line("too-many", "too many drives", &json(&many));
    line("done", "done", &json(&FromAgent::Done { order: 3, failure: None }));
    line("failure", "failure", &json(&FromAgent::Done { order: 3, failure }));
    line("alive", "alive", &json(&FromAgent::Alive));

    let (share, kind, claim) = (parsed("a"), Kind::Disk, Claim::Epoch(7));
    let what = Order::Insert { share, kind, writable: true, claim, lun: Some(1) };
    line("insert", "insert", &json(&ToAgent::Order { order: 1, what }));
    let what = Order::Eject { share: parsed("a"), forced: true };
    line("eject", "eject", &json(&ToAgent::Order { order: 2, what }));
    let (version, blade) = ("0.1.0".to_owned(), parsed("b"));
    line("welcome", "welcome", &json(&ToAgent::Welcome { version, blade }));
    line("refused", "refused", &json(&ToAgent::Refused { reason: "no\n".to_owned() }));

    line("line-too-long", "too long", &[b'~'; 1024]);
    for (name, wanted, text) in [
        ("export", "export", "a"),
        ("export-access", "export with access", "a@ro"),
        ("export-new", "export anew", "a@rw,new"),
        ("export-epoch", "export in an epoch", "a@rw,epoch=7"),
        ("export-generation", "export of a generation", "a@ro,generation=3"),
        ("grant", "grant to write", "generation=3,epoch=7"),
        ("grant-reader", "grant to read", "generation=3"),
        ("drive-unix", "drive", "unix:/run/n.sock:disk:ro"),
        ("drive-tcp", "drive", "tcp:[::1]:10809:a b:cd"),
        ("drive-file", "drive", "file:/a:b/c"),
        ("drive-share", "drive", "share:a@rw,epoch=7"),
    ] {
        line(name, wanted, text.as_bytes());
    }
}

fn configurations() {
    let config = |name: &str, wanted: &str, text: &str| {
        let name = format!("{name}.toml");
        seed(drive_config, "drive_config", &name, wanted, text.as_bytes());
    };
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../usb-gadget-drive/");
    let shipped = |file| std::fs::read_to_string(format!("{folder}{file}")).expect("it is shipped");
    config("shipped", "no share", &shipped("usb-gadget-drive.toml"));
    config(
        "shipped-blade",
        "a blade with a manager",
        &shipped("examples/usb-gadget-drive-agent.toml"),
    );
    let shares: String = (0..=MAX_SHARES).map(|n| format!("{n:x}={{path=\"\"}},")).collect();
    let drives: String = (0..=MAX_DRIVES).map(|n| format!("{{name=\"{n}\",path=\"\"}},")).collect();
    config(
        "many-shares",
        "too many shares",
        &format!("shares={{{}}}", shares.trim_end_matches(',')),
    );
    config("many-drives", "too many drives", &format!("drives=[{drives}]"));
    let share = |rest: &str| format!("[shares.a]\npath = \"/a.iso\"\n{rest}");
    config("read-only", "read-only share", &share("read = [\"*\", \"b\"]\nkind = \"disk\""));
    config("exclusive", "exclusive share", &share("mode = \"exclusive\"\nwrite = [\"b\"]"));
    config("private", "private share", &share("mode = \"private\"\ndescription = \"x\""));
    config("cd", "read-only share", &share("kind = \"cd\""));
    let remote = |uri: &str| format!("[shares.a]\nnbd = \"{uri}\"");
    config("remote", "read-only share", &remote("nbd://mm.example/a"));
    config("remote-odd", "another error", &remote("http://x"));
    config("cache", "no share", "[serve]\ncache_mib = 64");
    config("cache-little", "another error", "[serve]\ncache_mib = 0");
    config("nobody", "nobody may write", &share("mode = \"exclusive\""));
    config("writer", "writer of a read-only share", &share("write = [\"b\"]"));
    config("name", "bad name", "[shares.\"a b\"]\npath = \"/a\"");
    config("blade-name", "bad name", &share("read = [\"b/1\"]"));
    config("key", "unknown key", &share("pth = 1"));
    config("missing", "another error", "[shares.a]");
    config(
        "serve",
        "no share",
        "state_dir = \"/s\"\n[serve]\nlisten = [\"[::1]:1\"]\nunix = [\"/n\"]\nagents = \"0.0.0.0:7463\"\ntls = \"/t\"",
    );
    config("no-tls", "no certificates", "[serve]\nagents = \"0.0.0.0:7463\"");
    config("syntax", "wrong type or syntax", "[shares\na = ");
    config("type", "wrong type or syntax", "[serve]\nlisten = [\"x\u{1b}\"]");
    config("deep", "too deep", &format!("a = {}", "[".repeat(100)));
    seed(drive_config, "drive_config", "latin1.toml", "not text", b"# \xe9\n");

    let drive = |rest: &str| format!("[[drives]]\nname = \"a\"\npath = \"/a\"\n{rest}");
    config("empty", "a blade alone", "");
    config("drive", "drives of its own", &drive("cd = true"));
    config("drive-twice", "name twice", &drive(&drive("")));
    config("drive-cd", "writable CD", &drive("cd = true\nwritable = true"));
    config("manager", "a blade with a manager", "manager = \"[fd00::1]:7463\"\ntls = \"/t\"");
    config("manager-nbd", "a blade with a manager", "manager = \"mm:7463\"\nnbd = \"mm:1\"");
    config("address", "bad address", "manager = \"mm\"");
    config("address-port", "bad address", "manager = \"mm:0\"");
    config("address-nbd", "bad address", "manager = \"mm:1\"\nnbd = \":1\"");
    config("host", "bad host", "manager = \"a b:1\"");
}
