// SPDX-License-Identifier: MIT OR Apache-2.0
//! Compares our layouts and numbers with the kernel headers installed on this machine, by asking the C compiler.
#![cfg(all(
    feature = "cuse",
    feature = "hid",
    feature = "i2c",
    feature = "ipmi_devintf",
    feature = "tty_lines"
))]
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::collections::BTreeMap;
use std::mem::offset_of;
use std::process::Command;

use kernel_abi::cuse::{CuseInitIn, CuseInitOut, InHeader, IoctlIn, IoctlIovec, PollIn, ReleaseIn};
use kernel_abi::ipmi_devintf as dev;
use kernel_abi::ipmi_devintf::ioctl;

/// Evaluates C expressions with the given headers and returns their values by expression.
fn ask_c(headers: &[&str], expressions: &[String]) -> BTreeMap<String, u64> {
    let dir = tempfile::tempdir().unwrap();
    let mut source = String::from("#include <stdio.h>\n#include <stddef.h>\n");
    for header in headers {
        source.push_str(&format!("#include <{header}>\n"));
    }
    source.push_str("int main(void) {\n");
    for e in expressions {
        source.push_str(&format!("printf(\"%llu\\n\", (unsigned long long)({e}));\n"));
    }
    source.push_str("return 0; }\n");
    let (c, exe) = (dir.path().join("ask.c"), dir.path().join("ask"));
    std::fs::write(&c, source).unwrap();
    let cc = Command::new("cc").arg("-o").arg(&exe).arg(&c).output().expect("a C compiler, cc");
    assert!(cc.status.success(), "{}", String::from_utf8_lossy(&cc.stderr));
    let out = Command::new(&exe).output().unwrap();
    let values = String::from_utf8(out.stdout).unwrap();
    expressions.iter().cloned().zip(values.lines().map(|l| l.parse().unwrap())).collect()
}

fn compare(headers: &[&str], ours: &[(&str, u64)]) {
    let expressions: Vec<String> = ours.iter().map(|(e, _)| (*e).to_owned()).collect();
    let theirs = ask_c(headers, &expressions);
    for (expression, value) in ours {
        assert_eq!(theirs[*expression], *value, "{expression}");
    }
}

#[test]
fn cuse_layouts_are_the_headers() {
    compare(
        &["linux/fuse.h"],
        &[
            ("sizeof(struct fuse_in_header)", size_of::<InHeader>() as u64),
            ("offsetof(struct fuse_in_header, unique)", offset_of!(InHeader, unique) as u64),
            ("offsetof(struct fuse_in_header, uid)", offset_of!(InHeader, uid) as u64),
            ("offsetof(struct fuse_in_header, pid)", offset_of!(InHeader, pid) as u64),
            ("sizeof(struct cuse_init_in)", size_of::<CuseInitIn>() as u64),
            ("sizeof(struct cuse_init_out)", size_of::<CuseInitOut>() as u64),
            ("offsetof(struct cuse_init_out, flags)", offset_of!(CuseInitOut, flags) as u64),
            (
                "offsetof(struct cuse_init_out, dev_major)",
                offset_of!(CuseInitOut, dev_major) as u64,
            ),
            ("sizeof(struct fuse_release_in)", size_of::<ReleaseIn>() as u64),
            ("sizeof(struct fuse_ioctl_in)", size_of::<IoctlIn>() as u64),
            ("offsetof(struct fuse_ioctl_in, cmd)", offset_of!(IoctlIn, cmd) as u64),
            ("offsetof(struct fuse_ioctl_in, arg)", offset_of!(IoctlIn, arg) as u64),
            ("offsetof(struct fuse_ioctl_in, in_size)", offset_of!(IoctlIn, in_size) as u64),
            ("sizeof(struct fuse_ioctl_iovec)", size_of::<IoctlIovec>() as u64),
            ("sizeof(struct fuse_poll_in)", size_of::<PollIn>() as u64),
            ("offsetof(struct fuse_poll_in, flags)", offset_of!(PollIn, flags) as u64),
            ("FUSE_MIN_READ_BUFFER", kernel_abi::cuse::FUSE_MIN_READ_BUFFER as u64),
            ("CUSE_INIT", 4096),
            ("FUSE_IOCTL", 39),
            ("FUSE_POLL", 40),
            ("FUSE_INTERRUPT", 36),
            ("FUSE_OPEN", 14),
            ("FUSE_RELEASE", 18),
            ("CUSE_UNRESTRICTED_IOCTL", 1),
            ("FUSE_IOCTL_RETRY", 4),
            ("FUSE_NOTIFY_POLL", 1),
        ],
    );
}

#[test]
fn ipmi_layouts_are_the_headers() {
    compare(
        &["linux/ipmi.h", "linux/ipmi_msgdefs.h"],
        &[
            ("sizeof(struct ipmi_msg)", size_of::<dev::IpmiMsg>() as u64),
            ("offsetof(struct ipmi_msg, data)", offset_of!(dev::IpmiMsg, data) as u64),
            ("sizeof(struct ipmi_req)", size_of::<dev::IpmiReq>() as u64),
            ("offsetof(struct ipmi_req, msgid)", offset_of!(dev::IpmiReq, msgid) as u64),
            ("offsetof(struct ipmi_req, msg)", offset_of!(dev::IpmiReq, msg) as u64),
            ("sizeof(struct ipmi_req_settime)", size_of::<dev::IpmiReqSettime>() as u64),
            (
                "offsetof(struct ipmi_req_settime, retry_time_ms)",
                offset_of!(dev::IpmiReqSettime, retry_time_ms) as u64,
            ),
            ("sizeof(struct ipmi_recv)", size_of::<dev::IpmiRecv>() as u64),
            ("offsetof(struct ipmi_recv, addr)", offset_of!(dev::IpmiRecv, addr) as u64),
            ("offsetof(struct ipmi_recv, msgid)", offset_of!(dev::IpmiRecv, msgid) as u64),
            ("offsetof(struct ipmi_recv, msg)", offset_of!(dev::IpmiRecv, msg) as u64),
            ("sizeof(struct ipmi_addr)", dev::IPMI_ADDR_LEN as u64),
            ("sizeof(struct ipmi_cmdspec)", size_of::<dev::IpmiCmdspec>() as u64),
            ("sizeof(struct ipmi_cmdspec_chans)", size_of::<dev::IpmiCmdspecChans>() as u64),
            (
                "sizeof(struct ipmi_channel_lun_address_set)",
                size_of::<dev::IpmiChannelLunAddressSet>() as u64,
            ),
            ("sizeof(struct ipmi_timing_parms)", size_of::<dev::IpmiTimingParms>() as u64),
            ("IPMI_MAX_MSG_LENGTH", dev::IPMI_MAX_MSG_LENGTH as u64),
            ("IPMI_SYSTEM_INTERFACE_ADDR_TYPE", dev::IPMI_SYSTEM_INTERFACE_ADDR_TYPE as u64),
            ("IPMI_IPMB_DIRECT_ADDR_TYPE", dev::IPMI_IPMB_DIRECT_ADDR_TYPE as u64),
            ("IPMI_LAN_ADDR_TYPE", dev::IPMI_LAN_ADDR_TYPE as u64),
            ("IPMI_OEM_RECV_TYPE", dev::IPMI_OEM_RECV_TYPE as u64),
        ],
    );
}

#[test]
fn ioctl_numbers_are_the_headers() {
    compare(
        &["sys/ioctl.h", "linux/ipmi.h"],
        &[
            ("IPMICTL_SEND_COMMAND", ioctl::SEND_COMMAND.into()),
            ("IPMICTL_SEND_COMMAND_SETTIME", ioctl::SEND_COMMAND_SETTIME.into()),
            ("IPMICTL_RECEIVE_MSG", ioctl::RECEIVE_MSG.into()),
            ("IPMICTL_RECEIVE_MSG_TRUNC", ioctl::RECEIVE_MSG_TRUNC.into()),
            ("IPMICTL_REGISTER_FOR_CMD", ioctl::REGISTER_FOR_CMD.into()),
            ("IPMICTL_UNREGISTER_FOR_CMD", ioctl::UNREGISTER_FOR_CMD.into()),
            ("IPMICTL_REGISTER_FOR_CMD_CHANS", ioctl::REGISTER_FOR_CMD_CHANS.into()),
            ("IPMICTL_UNREGISTER_FOR_CMD_CHANS", ioctl::UNREGISTER_FOR_CMD_CHANS.into()),
            ("IPMICTL_SET_GETS_EVENTS_CMD", ioctl::SET_GETS_EVENTS.into()),
            ("IPMICTL_SET_MY_ADDRESS_CMD", ioctl::SET_MY_ADDRESS.into()),
            ("IPMICTL_GET_MY_ADDRESS_CMD", ioctl::GET_MY_ADDRESS.into()),
            ("IPMICTL_SET_MY_LUN_CMD", ioctl::SET_MY_LUN.into()),
            ("IPMICTL_GET_MY_LUN_CMD", ioctl::GET_MY_LUN.into()),
            ("IPMICTL_SET_TIMING_PARMS_CMD", ioctl::SET_TIMING_PARMS.into()),
            ("IPMICTL_GET_TIMING_PARMS_CMD", ioctl::GET_TIMING_PARMS.into()),
            ("IPMICTL_SET_MY_CHANNEL_ADDRESS_CMD", ioctl::SET_MY_CHANNEL_ADDRESS.into()),
            ("IPMICTL_GET_MY_CHANNEL_ADDRESS_CMD", ioctl::GET_MY_CHANNEL_ADDRESS.into()),
            ("IPMICTL_SET_MY_CHANNEL_LUN_CMD", ioctl::SET_MY_CHANNEL_LUN.into()),
            ("IPMICTL_GET_MY_CHANNEL_LUN_CMD", ioctl::GET_MY_CHANNEL_LUN.into()),
            ("IPMICTL_GET_MAINTENANCE_MODE_CMD", ioctl::GET_MAINTENANCE_MODE.into()),
            ("IPMICTL_SET_MAINTENANCE_MODE_CMD", ioctl::SET_MAINTENANCE_MODE.into()),
        ],
    );
}

#[cfg(feature = "nbd_netlink")]
#[test]
fn netlink_layouts_and_numbers_are_the_headers() {
    use kernel_abi::nbd_netlink::wire as nl;
    compare(
        &["linux/netlink.h", "linux/genetlink.h", "linux/nbd-netlink.h"],
        &[
            ("sizeof(struct nlmsghdr)", size_of::<nl::Nlmsghdr>() as u64),
            ("offsetof(struct nlmsghdr, nlmsg_type)", offset_of!(nl::Nlmsghdr, nlmsg_type) as u64),
            ("offsetof(struct nlmsghdr, nlmsg_seq)", offset_of!(nl::Nlmsghdr, nlmsg_seq) as u64),
            ("sizeof(struct genlmsghdr)", size_of::<nl::Genlmsghdr>() as u64),
            ("sizeof(struct nlattr)", size_of::<nl::Nlattr>() as u64),
            ("offsetof(struct nlattr, nla_type)", offset_of!(nl::Nlattr, nla_type) as u64),
            ("NLMSG_ERROR", nl::NLMSG_ERROR.into()),
            ("NLM_F_REQUEST | NLM_F_ACK", 5),
            ("NLA_F_NESTED", 1 << 15),
            ("NLA_TYPE_MASK & 0xffff", 0x3fff),
            ("GENL_ID_CTRL", nl::GENL_ID_CTRL.into()),
            ("CTRL_CMD_GETFAMILY", nl::CTRL_CMD_GETFAMILY.into()),
            ("CTRL_ATTR_FAMILY_ID", nl::CTRL_ATTR_FAMILY_ID.into()),
            ("CTRL_ATTR_FAMILY_NAME", nl::CTRL_ATTR_FAMILY_NAME.into()),
            ("CTRL_ATTR_MCAST_GROUPS", nl::CTRL_ATTR_MCAST_GROUPS.into()),
            ("CTRL_ATTR_MCAST_GRP_NAME", nl::CTRL_ATTR_MCAST_GRP_NAME.into()),
            ("CTRL_ATTR_MCAST_GRP_ID", nl::CTRL_ATTR_MCAST_GRP_ID.into()),
            ("NBD_GENL_VERSION", nl::VERSION.into()),
            ("NBD_CMD_CONNECT", nl::NBD_CMD_CONNECT.into()),
            ("NBD_CMD_DISCONNECT", nl::NBD_CMD_DISCONNECT.into()),
            ("NBD_CMD_RECONFIGURE", nl::NBD_CMD_RECONFIGURE.into()),
            ("NBD_CMD_LINK_DEAD", nl::NBD_CMD_LINK_DEAD.into()),
            ("NBD_CMD_STATUS", nl::NBD_CMD_STATUS.into()),
            ("NBD_ATTR_INDEX", nl::NBD_ATTR_INDEX.into()),
            ("NBD_ATTR_SIZE_BYTES", nl::NBD_ATTR_SIZE_BYTES.into()),
            ("NBD_ATTR_BLOCK_SIZE_BYTES", nl::NBD_ATTR_BLOCK_SIZE_BYTES.into()),
            ("NBD_ATTR_TIMEOUT", nl::NBD_ATTR_TIMEOUT.into()),
            ("NBD_ATTR_SERVER_FLAGS", nl::NBD_ATTR_SERVER_FLAGS.into()),
            ("NBD_ATTR_CLIENT_FLAGS", nl::NBD_ATTR_CLIENT_FLAGS.into()),
            ("NBD_ATTR_SOCKETS", nl::NBD_ATTR_SOCKETS.into()),
            ("NBD_ATTR_DEAD_CONN_TIMEOUT", nl::NBD_ATTR_DEAD_CONN_TIMEOUT.into()),
            ("NBD_ATTR_DEVICE_LIST", nl::NBD_ATTR_DEVICE_LIST.into()),
            ("NBD_ATTR_BACKEND_IDENTIFIER", nl::NBD_ATTR_BACKEND_IDENTIFIER.into()),
            ("NBD_SOCK_ITEM", nl::NBD_SOCK_ITEM.into()),
            ("NBD_SOCK_FD", nl::NBD_SOCK_FD.into()),
            ("NBD_DEVICE_ITEM", nl::NBD_DEVICE_ITEM.into()),
            ("NBD_DEVICE_INDEX", nl::NBD_DEVICE_INDEX.into()),
            ("NBD_DEVICE_CONNECTED", nl::NBD_DEVICE_CONNECTED.into()),
        ],
    );
}

#[test]
fn serial_layouts_are_the_headers() {
    use kernel_abi::tty_lines::{SER_RS485_ENABLED, SER_RS485_RTS_ON_SEND, SerialRs485};
    compare(
        &["linux/serial.h", "sys/ioctl.h"],
        &[
            ("sizeof(struct serial_rs485)", size_of::<SerialRs485>() as u64),
            (
                "offsetof(struct serial_rs485, delay_rts_after_send)",
                offset_of!(SerialRs485, delay_rts_after_send) as u64,
            ),
            ("SER_RS485_ENABLED", u64::from(SER_RS485_ENABLED)),
            ("SER_RS485_RTS_ON_SEND", u64::from(SER_RS485_RTS_ON_SEND)),
        ],
    );
}

#[test]
fn i2c_numbers_are_the_headers() {
    use kernel_abi::i2c;
    compare(
        &["linux/i2c.h", "linux/i2c-dev.h"],
        &[
            ("I2C_TIMEOUT", i2c::I2C_TIMEOUT.into()),
            ("I2C_RETRIES", i2c::I2C_RETRIES.into()),
            ("I2C_FUNCS", i2c::I2C_FUNCS.into()),
            ("I2C_FUNC_SMBUS_PEC", i2c::I2C_FUNC_SMBUS_PEC),
            ("I2C_FUNC_SMBUS_READ_BYTE_DATA", i2c::I2C_FUNC_SMBUS_READ_BYTE_DATA),
            ("I2C_FUNC_SMBUS_READ_WORD_DATA", i2c::I2C_FUNC_SMBUS_READ_WORD_DATA),
            ("I2C_FUNC_SMBUS_READ_BLOCK_DATA", i2c::I2C_FUNC_SMBUS_READ_BLOCK_DATA),
            ("I2C_FUNC_SMBUS_READ_I2C_BLOCK", i2c::I2C_FUNC_SMBUS_READ_I2C_BLOCK),
        ],
    );
}

#[test]
fn hid_layouts_are_the_headers() {
    use kernel_abi::hid::{self, UhidCreate2Req, UhidGetReportReplyReq, UhidSetReportReq};
    compare(
        &["linux/uhid.h", "linux/hidraw.h"],
        &[
            ("UHID_DATA_MAX", hid::UHID_DATA_MAX as u64),
            ("HID_MAX_DESCRIPTOR_SIZE", hid::HID_MAX_DESCRIPTOR_SIZE as u64),
            ("sizeof(struct uhid_event)", hid::UHID_EVENT_LEN as u64),
            ("offsetof(struct uhid_create2_req, rd_data)", size_of::<UhidCreate2Req>() as u64),
            ("offsetof(struct uhid_create2_req, bus)", offset_of!(UhidCreate2Req, bus) as u64),
            (
                "offsetof(struct uhid_get_report_reply_req, data)",
                size_of::<UhidGetReportReplyReq>() as u64,
            ),
            (
                "offsetof(struct uhid_get_report_reply_req, err)",
                offset_of!(UhidGetReportReplyReq, err) as u64,
            ),
            (
                "offsetof(struct uhid_set_report_reply_req, err)",
                offset_of!(UhidGetReportReplyReq, err) as u64,
            ),
            ("offsetof(struct uhid_set_report_req, data)", size_of::<UhidSetReportReq>() as u64),
            (
                "offsetof(struct uhid_set_report_req, rtype)",
                offset_of!(UhidSetReportReq, rtype) as u64,
            ),
            (
                "offsetof(struct uhid_get_report_req, rtype)",
                offset_of!(UhidSetReportReq, rtype) as u64,
            ),
            ("offsetof(struct uhid_output_req, size)", hid::UHID_DATA_MAX as u64),
            ("offsetof(struct uhid_input2_req, data)", 2),
            ("UHID_DESTROY", hid::UHID_DESTROY.into()),
            ("UHID_START", hid::UHID_START.into()),
            ("UHID_STOP", hid::UHID_STOP.into()),
            ("UHID_OUTPUT", hid::UHID_OUTPUT.into()),
            ("UHID_GET_REPORT", hid::UHID_GET_REPORT.into()),
            ("UHID_GET_REPORT_REPLY", hid::UHID_GET_REPORT_REPLY.into()),
            ("UHID_CREATE2", hid::UHID_CREATE2.into()),
            ("UHID_INPUT2", hid::UHID_INPUT2.into()),
            ("UHID_SET_REPORT", hid::UHID_SET_REPORT.into()),
            ("UHID_SET_REPORT_REPLY", hid::UHID_SET_REPORT_REPLY.into()),
            ("UHID_FEATURE_REPORT", hid::ReportKind::Feature as u64),
            ("UHID_OUTPUT_REPORT", hid::ReportKind::Output as u64),
            ("UHID_INPUT_REPORT", hid::ReportKind::Input as u64),
            (
                "sizeof(struct hidraw_report_descriptor)",
                size_of::<hid::HidrawReportDescriptor>() as u64,
            ),
            ("sizeof(struct hidraw_devinfo)", size_of::<hid::HidrawDevinfo>() as u64),
            ("HIDIOCGFEATURE(9)", nix::request_code_readwrite!(b'H', 0x07, 9)),
            ("HIDIOCGINPUT(9)", nix::request_code_readwrite!(b'H', 0x0a, 9)),
            ("HIDIOCGOUTPUT(9)", nix::request_code_readwrite!(b'H', 0x0c, 9)),
            ("HIDIOCSFEATURE(9)", nix::request_code_readwrite!(b'H', 0x06, 9)),
            ("HIDIOCSINPUT(9)", nix::request_code_readwrite!(b'H', 0x09, 9)),
            ("HIDIOCSOUTPUT(9)", nix::request_code_readwrite!(b'H', 0x0b, 9)),
            ("EVIOCGRAB", nix::request_code_write!(b'E', 0x90, 4)),
        ],
    );
}

/// Events as the header's structures have them, byte by byte.
#[test]
fn uhid_events_are_the_headers() {
    use kernel_abi::hid::{Create, FromKernel, ReportKind, ToKernel};
    let all = |fill: &str| -> Vec<u8> {
        // In words of eight bytes: each is an expression of its own.
        let at = |at| {
            format!(
                "({{ struct uhid_event e = {{0}}; {fill} unsigned long long w = 0; memcpy(&w, (char *)&e + {at} * 8, 8); w; }})"
            )
        };
        let expressions: Vec<String> = (0..38).chain(512..514).map(at).collect();
        let told = ask_c(&["string.h", "linux/uhid.h"], &expressions);
        let mut bytes = vec![0; 514 * 8];
        for (at, expression) in (0..38).chain(512..514).zip(&expressions) {
            bytes[at * 8..][..8].copy_from_slice(&told[expression].to_ne_bytes());
        }
        bytes
    };
    let bytes = |fill: &str, len: usize| all(fill)[..len].to_vec();
    let create = Create {
        name: "N",
        phys: "P",
        uniq: "U",
        bus: 3,
        ids: (0x1d6b, 0x0104),
        descriptor: &[5, 1],
    };
    let fill = "e.type = UHID_CREATE2; e.u.create2.name[0] = 'N'; e.u.create2.phys[0] = 'P'; \
        e.u.create2.uniq[0] = 'U'; e.u.create2.rd_size = 2; e.u.create2.bus = 3; e.u.create2.vendor = 0x1d6b; \
        e.u.create2.product = 0x104; e.u.create2.rd_data[0] = 5; e.u.create2.rd_data[1] = 1;";
    let made = ToKernel::Create(create).encode();
    assert_eq!(made, bytes(fill, made.len()));
    let told = [
        ("e.type = UHID_DESTROY;", ToKernel::Destroy),
        (
            "e.type = UHID_INPUT2; e.u.input2.size = 3; memcpy(e.u.input2.data, \"abc\", 3);",
            ToKernel::Input(b"abc"),
        ),
        (
            "e.type = UHID_GET_REPORT_REPLY; e.u.get_report_reply.id = 7; \
             e.u.get_report_reply.size = 2; memcpy(e.u.get_report_reply.data, \"xy\", 2);",
            ToKernel::Got(7, Some(b"xy")),
        ),
        (
            "e.type = UHID_GET_REPORT_REPLY; e.u.get_report_reply.id = 7; e.u.get_report_reply.err = 1;",
            ToKernel::Got(7, None),
        ),
        (
            "e.type = UHID_SET_REPORT_REPLY; e.u.set_report_reply.id = 8; e.u.set_report_reply.err = 1;",
            ToKernel::Set(8, false),
        ),
    ];
    for (fill, event) in told {
        let ours = event.encode();
        assert_eq!(ours, bytes(fill, ours.len()), "{event:?}");
    }
    let from = [
        ("e.type = UHID_START;", 4, FromKernel::Start),
        (
            "e.type = UHID_GET_REPORT; e.u.get_report.id = 9; e.u.get_report.rnum = 4; e.u.get_report.rtype = UHID_FEATURE_REPORT;",
            20,
            FromKernel::Get(9, ReportKind::Feature, 4),
        ),
        (
            "e.type = UHID_SET_REPORT; e.u.set_report.id = 9; e.u.set_report.rnum = 4; e.u.set_report.size = 2; \
             e.u.set_report.rtype = UHID_OUTPUT_REPORT; memcpy(e.u.set_report.data, \"ab\", 2);",
            20,
            FromKernel::Set(9, ReportKind::Output, 4, b"ab"),
        ),
        (
            "e.type = UHID_OUTPUT; e.u.output.size = 1; e.u.output.data[0] = 2; e.u.output.rtype = UHID_OUTPUT_REPORT;",
            4 + 4096 + 3,
            FromKernel::Output(&[2]),
        ),
    ];
    for (fill, len, event) in from {
        assert_eq!(FromKernel::decode(&bytes(fill, len)), Some(event));
    }
}
