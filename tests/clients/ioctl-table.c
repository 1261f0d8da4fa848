// SPDX-License-Identifier: MIT OR Apache-2.0
// ioctl-table NODE: makes every call that ipmi_devintf knows on NODE, rightly and wrongly, and prints what
// came of it, one line a case: name, result, errno, details, with a tab between. Two nodes behave
// alike when the outputs are the same: compare that of /dev/ipmi0 with that of a mux node.
//
// A case opens NODE afresh and leaves the interface as it found it. What is sent, to the BMC and to others
// through it, asks for a device id or GUID. Nothing is printed that changes by itself.
//
// Left out, since the answer is not the same twice, or CUSE cannot give the kernel driver's:
// * events: when they come is the BMC's affair. Only turning them on and off is here.
// * netfn 46h with Send Message or Read Event Message Buffer: the upper two bits are lost on the way, so
//   that the driver's own check does not see them, and they disturb its own work.
// * the order of answers to one handle: the driver does not keep it under load.
// * maintenance mode and registrations left behind by a close: the driver keeps the former for ever.
// * SEND with a bad data pointer and an address that is none: CUSE brings both at once (EFAULT), the
//   driver looks at the address first (EINVAL).
// * RECEIVE_MSG_TRUNC with too little room at a bad address: Linux 6.1 puts the message back cut short.
// * RECEIVE into memory that can be read only: CUSE finds that out when the message is already taken.
// * what a failed call leaves in the caller's memory.
// * read and write of nothing, or with bad pointers, and O_ASYNC: the kernel's CUSE does not ask its server.
#define _GNU_SOURCE
#include "ioctl-table/call.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/uio.h>
#include <sys/wait.h>

// A case says after the macro in what it differs from it.
#pragma GCC diagnostic ignored "-Woverride-init"

static const char *node;

static const char *errno_name(int error)
{
	static const struct {
		int number;
		const char *name;
	} names[] = {
#define E(x) { x, #x }
		E(EAFNOSUPPORT), E(EAGAIN), E(EBADF),	 E(EBUSY),  E(ECONNABORTED), E(EFAULT), E(EINTR),
		E(EINVAL),	 E(EIO),    E(EMSGSIZE), E(ENODEV), E(ENOENT),	     E(ENOMEM), E(ENOTCONN),
		E(ENOTTY),	 E(EPERM),  E(ESPIPE),
#undef E
	};
	static char other[16];

	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (names[i].number == error)
			return names[i].name;
	snprintf(other, sizeof other, "E%d", error);
	return other;
}

static int rows;

__attribute__((format(printf, 3, 4))) static void row(const char *name, int rc, const char *details, ...)
{
	va_list list;

	printf("%s\t%d\t%s\t", name, rc < 0 ? -1 : rc, rc < 0 ? errno_name(-rc) : "-");
	va_start(list, details);
	vprintf(details, list);
	va_end(list);
	putchar('\n');
	fflush(stdout);
	rows++;
}

// A name of two parts, or of three. Good until the next call.
__attribute__((format(printf, 1, 2))) static const char *name(const char *format, ...)
{
	static char text[96];
	va_list list;

	va_start(list, format);
	vsnprintf(text, sizeof text, format, list);
	va_end(list);
	return text;
}

// Only the fields of an address: what pads it means nothing.
static const char *address_text(const struct message *m)
{
	static char text[64];
	const uint8_t *r = m->from.rest;
	int len = snprintf(text, sizeof text, "%02x/%d(%u)", m->from.type, m->from.channel, m->addr_len);

	if (m->from.type == IPMI_SYSTEM_INTERFACE_ADDR_TYPE)
		snprintf(text + len, sizeof text - len, " lun %02x", r[0]);
	else if (m->from.type == IPMI_LAN_ADDR_TYPE)
		snprintf(text + len, sizeof text - len, " %02x %02x %02x %02x lun %02x", r[0], r[1], r[2],
			 r[3], r[4]);
	else
		snprintf(text + len, sizeof text - len, " %02x lun %02x", r[0], r[1]);
	return text;
}

static const char *message_text(const struct message *m)
{
	static char text[4 * IPMI_MAX_MSG_LENGTH];
	int len = snprintf(text, sizeof text, "type %d msgid %lld %02x/%02x from %s data(%u)", m->recv_type,
			   m->msgid, m->netfn, m->cmd, address_text(m), m->data_len);

	for (int i = 0; i < m->data_len && i < IPMI_MAX_MSG_LENGTH; i++)
		len += snprintf(text + len, sizeof text - len, " %02x", m->data[i]);
	return text;
}

// What a handle has to receive next, waiting for it.
static const char *answer_text(int fd)
{
	static char text[32];
	struct message m;

	if (!readable(fd, ANSWER_MS))
		return "no answer in 10 s";
	int rc = receive_whole(fd, &m);
	if (rc == 0)
		return message_text(&m);
	snprintf(text, sizeof text, "receive %s", errno_name(-rc));
	return text;
}

static int open_as(int flags)
{
	int fd = open(node, flags);
	if (fd < 0) {
		fprintf(stderr, "ioctl-table: cannot open %s: %s\n", node, strerror(errno));
		exit(1);
	}
	return fd;
}

static int open_node(void)
{
	return open_as(O_RDWR | O_CLOEXEC);
}

#define BMC(channel, lun) { IPMI_SYSTEM_INTERFACE_ADDR_TYPE, channel, { lun } }
#define IPMB(channel, slave, lun) { IPMI_IPMB_ADDR_TYPE, channel, { slave, lun } }
#define BROADCAST(channel, slave, lun) { IPMI_IPMB_BROADCAST_ADDR_TYPE, channel, { slave, lun } }
#define DIRECT(channel, slave, rs_lun, rq_lun) \
	{ IPMI_IPMB_DIRECT_ADDR_TYPE, channel, { slave, rs_lun, rq_lun } }
#define LAN(channel, lun) { IPMI_LAN_ADDR_TYPE, channel, { 4, 0, 0x81, 0x20, lun } }

// Get Device ID to the BMC, rightly.
static struct request device_id(long long msgid)
{
	return (struct request){
		.to = BMC(IPMI_BMC_CHANNEL, 0),
		.addr_len = 8,
		.msgid = msgid,
		.netfn = 0x06,
		.cmd = 0x01,
		.small = compat,
	};
}

static int send_device_id(int fd, long long msgid)
{
	struct request r = device_id(msgid);
	return send_request(fd, &r);
}

// Sends on one handle and receives on another of the same open file.
static void roundtrip(const char *name, int to, int from, long long msgid)
{
	int rc = send_device_id(to, msgid);

	row(name, rc, "%s", rc ? "-" : answer_text(from));
}

// Sends, and waits for the answer where there will be one.
static void exchange(const char *name, const struct request *r)
{
	int fd = open_node(), rc = send_request(fd, r);

	row(name, rc, "%s", rc ? "-" : answer_text(fd));
	close(fd);
}

static void unknown_numbers(void)
{
	static const unsigned long numbers[] = {
		0, 0x5401 /* TCGETS */, 0xffffffff, _IO('i', 13), _IO('i', 14), _IOR('i', 0, int), _IOR('i', 10, int),
		_IOR('i', 32, int), _IOR('i', 255, int), _IOW('i', 13, struct ipmi_req), _IOWR('i', 30, int),
		_IOR('i', 13, char[39]), _IOR('i', 13, char[41]), _IOWR('i', 12, char[40]), _IOR('I', 13, struct ipmi_req),
		_IOR('i', 31, int), _IOR('i', 28, struct ipmi_cmdspec),
	};
	int fd = open_node();

	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
		unsigned char value[64] = { 0 };
		row(name("unknown/%08lx", numbers[i]), call_with(fd, numbers[i], value, sizeof value), "-");
		row(name("unknown/%08lx/null", numbers[i]), call(fd, numbers[i], 0), "-");
	}
	close(fd);
}

static const struct ioctl_of {
	const char *name;
	unsigned long wide, small;
	bool gives; // writes to its argument
} ioctls[] = {
	{ "SEND_COMMAND", IPMICTL_SEND_COMMAND, SMALL_SEND, false },
	{ "SEND_COMMAND_SETTIME", IPMICTL_SEND_COMMAND_SETTIME, SMALL_SEND_SETTIME, false },
	{ "RECEIVE_MSG", IPMICTL_RECEIVE_MSG, SMALL_RECEIVE, false },
	{ "RECEIVE_MSG_TRUNC", IPMICTL_RECEIVE_MSG_TRUNC, SMALL_RECEIVE_TRUNC, false },
#define SAME(x, gives) { #x, IPMICTL_##x, IPMICTL_##x, gives }
	SAME(REGISTER_FOR_CMD, false),
	SAME(UNREGISTER_FOR_CMD, false),
	SAME(REGISTER_FOR_CMD_CHANS, false),
	SAME(UNREGISTER_FOR_CMD_CHANS, false),
	SAME(SET_GETS_EVENTS_CMD, false),
	SAME(SET_MY_ADDRESS_CMD, false),
	SAME(GET_MY_ADDRESS_CMD, true),
	SAME(SET_MY_LUN_CMD, false),
	SAME(GET_MY_LUN_CMD, true),
	SAME(SET_MY_CHANNEL_ADDRESS_CMD, false),
	SAME(GET_MY_CHANNEL_ADDRESS_CMD, true),
	SAME(SET_MY_CHANNEL_LUN_CMD, false),
	SAME(GET_MY_CHANNEL_LUN_CMD, true),
	SAME(SET_TIMING_PARMS_CMD, false),
	SAME(GET_TIMING_PARMS_CMD, true),
	SAME(SET_MAINTENANCE_MODE_CMD, false),
	SAME(GET_MAINTENANCE_MODE_CMD, true),
#undef SAME
};

static void arguments(void)
{
	static const struct {
		const char *name;
		enum place place;
	} places[] = { { "null", NOWHERE }, { "hole", HOLE }, { "kernel", KERNEL }, { "cut", CUT } };
	int fd = open_node();

	for (size_t i = 0; i < sizeof ioctls / sizeof *ioctls; i++) {
		unsigned long number = compat ? ioctls[i].small : ioctls[i].wide;
		size_t len = _IOC_SIZE(number);

		for (size_t p = 0; p < sizeof places / sizeof *places; p++)
			row(name("argument/%s/%s", ioctls[i].name, places[p].name),
			    call(fd, number, at(ARG, places[p].place, len)), "-");
		if (!ioctls[i].gives)
			continue;
		memset((void *)at(ARG, GOOD, len), 0, len);
		protect_slots(PROT_READ);
		row(name("argument/%s/read-only", ioctls[i].name), call(fd, number, at(ARG, GOOD, len)), "-");
		protect_slots(PROT_READ | PROT_WRITE);
	}
	close(fd);
}

// The numbers of the other word size: a 64-bit caller does not have them, a 32-bit caller has both.
static void other_size(void)
{
	struct request r = device_id(11);
	struct room room = { .addr_len = ADDR_MAX, .data_len = IPMI_MAX_MSG_LENGTH, .small = !compat };
	struct message m;
	int fd = open_node();

	r.small = !compat;
	int rc = send_request(fd, &r);
	row("other size/SEND_COMMAND", rc, "-");
	r.settime = true;
	row("other size/SEND_COMMAND_SETTIME", send_request(fd, &r), "-");
	if (rc == 0)
		readable(fd, ANSWER_MS);
	rc = receive(fd, &room, &m);
	row("other size/RECEIVE_MSG", rc, "%s", rc ? "-" : message_text(&m));
	if (rc == 0)
		readable(fd, ANSWER_MS);
	room.trunc = true;
	rc = receive(fd, &room, &m);
	row("other size/RECEIVE_MSG_TRUNC", rc, "%s", rc ? "-" : message_text(&m));
	close(fd);
}

#include "ioctl-table/messages.h"
#include "ioctl-table/settings.h"
#include "ioctl-table/files.h"

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "--compat")) {
#ifdef __x86_64__
		compat = true;
#else
		fprintf(stderr, "ioctl-table: --compat is for x86-64 only\n");
		return 2;
#endif
	} else if (argc != 2 || argv[1][0] == '-') {
		fprintf(stderr, "usage: ioctl-table [--compat] NODE\n");
		return 2;
	}
	node = argv[argc - 1];
	make_slots();
	unknown_numbers();
	arguments();
	other_size();
	sending();
	addressing();
	receiving();
	registering();
	settings();
	files();
	sharing();
	limits();
	printf("rows\t%d\t-\t-\n", rows);
	return 0;
}
