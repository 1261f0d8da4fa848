// SPDX-License-Identifier: MIT OR Apache-2.0
// Cases of ioctl-table: messages sent and received.

#define SHORT_TIMING .settime = true, .retries = 0, .retry_ms = 1000
#define TO_BMC .to = BMC(IPMI_BMC_CHANNEL, 0), .addr_len = 8, .netfn = 0x06, .cmd = 0x01

static const struct {
	const char *name;
	struct request request;
} sends[] = {
	{ "plain", { TO_BMC } },
	{ "addr_len 0", { TO_BMC, .addr_len = 0 } },
	{ "addr_len 0, null", { TO_BMC, .addr_len = 0, .addr_at = NOWHERE } },
	{ "addr_len 7", { TO_BMC, .addr_len = 7 } },
	{ "addr_len 7, null", { TO_BMC, .addr_len = 7, .addr_at = NOWHERE } },
	{ "addr_len 9", { TO_BMC, .addr_len = 9 } },
	{ "addr_len 40", { TO_BMC, .addr_len = 40 } },
	{ "addr_len 41", { TO_BMC, .addr_len = 41 } },
	{ "addr_len 41, hole", { TO_BMC, .addr_len = 41, .addr_at = HOLE } },
	{ "addr_len ffffffff", { TO_BMC, .addr_len = 0xffffffff, .addr_at = HOLE } },
	{ "addr null", { TO_BMC, .addr_at = NOWHERE } },
	{ "addr hole", { TO_BMC, .addr_at = HOLE } },
	{ "addr kernel", { TO_BMC, .addr_at = KERNEL } },
	{ "addr cut", { TO_BMC, .addr_at = CUT } },
	{ "addr 40 cut", { TO_BMC, .addr_len = 40, .addr_at = CUT } },
	{ "data null, 0", { TO_BMC, .data_at = NOWHERE } },
	{ "data null, 1", { TO_BMC, .data_at = NOWHERE, .data_len = 1 } },
	{ "data null, 65535", { TO_BMC, .data_at = NOWHERE, .data_len = 65535 } },
	{ "data hole, 0", { TO_BMC, .data_at = HOLE } },
	{ "data hole, 1", { TO_BMC, .data_at = HOLE, .data_len = 1 } },
	{ "data hole, 272", { TO_BMC, .data_at = HOLE, .data_len = 272 } },
	{ "data hole, 273", { TO_BMC, .data_at = HOLE, .data_len = 273 } },
	{ "data kernel, 1", { TO_BMC, .data_at = KERNEL, .data_len = 1 } },
	{ "data cut, 16", { TO_BMC, .data_at = CUT, .data_len = 16 } },
	{ "data_len 1", { TO_BMC, .data_len = 1 } },
	{ "data_len 64", { TO_BMC, .data_len = 64 } },
	{ "data_len 270", { TO_BMC, .data_len = 270 } },
	{ "data_len 271", { TO_BMC, .data_len = 271 } },
	{ "data_len 272", { TO_BMC, .data_len = 272 } },
	{ "data_len 273", { TO_BMC, .data_len = 273 } },
	{ "data_len 65535", { TO_BMC, .data_len = 65535 } },
	{ "netfn 07", { TO_BMC, .netfn = 0x07 } },
	{ "netfn 07, data_len 272", { TO_BMC, .netfn = 0x07, .data_len = 272 } },
	{ "netfn 07, data_len 273", { TO_BMC, .netfn = 0x07, .data_len = 273 } },
	{ "netfn 07, data hole", { TO_BMC, .netfn = 0x07, .data_at = HOLE, .data_len = 1 } },
	{ "netfn 46", { TO_BMC, .netfn = 0x46 } }, // upper bits are cut off: this is 06h
	{ "netfn c6", { TO_BMC, .netfn = 0xc6 } },
	{ "netfn ff", { TO_BMC, .netfn = 0xff } },
	{ "netfn ff, cmd ff", { TO_BMC, .netfn = 0xff, .cmd = 0xff } },
	// The driver keeps these to itself: Get Message, Send Message, Read Event Message Buffer.
	{ "get message", { TO_BMC, .cmd = 0x33 } },
	{ "send message", { TO_BMC, .cmd = 0x34 } },
	{ "read event buffer", { TO_BMC, .cmd = 0x35 } },
	{ "send message, lun 2", { TO_BMC, .to = BMC(15, 2), .cmd = 0x34 } },
	{ "send message, data_len 272", { TO_BMC, .cmd = 0x34, .data_len = 272 } },
	{ "guid", { TO_BMC, .cmd = 0x08 } },
	{ "settime 0 0", { TO_BMC, .settime = true } },
	{ "settime -1 0", { TO_BMC, .settime = true, .retries = -1 } },
	{ "settime extreme", { TO_BMC, .settime = true, .retries = INT_MIN, .retry_ms = UINT_MAX } },
	{ "settime most", { TO_BMC, .settime = true, .retries = INT_MAX, .retry_ms = UINT_MAX } },
	{ "settime addr hole", { TO_BMC, .settime = true, .addr_at = HOLE } },
	{ "settime netfn 07", { TO_BMC, .settime = true, .netfn = 0x07 } },
	{ "settime data_len 271", { TO_BMC, .settime = true, .data_len = 271 } },
	{ "settime data_len 273", { TO_BMC, .settime = true, .data_len = 273 } },
};

static void message_ids(void)
{
	static const long long ids[] = { 0, 1, -1, INT_MAX, INT_MIN, LLONG_MAX, LLONG_MIN, 0x123456789abcdef0 };

	for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
		struct request r = device_id(ids[i]);
		exchange(name("send/msgid %llx", ids[i]), &r);
	}
}

static void sending(void)
{
	for (size_t i = 0; i < sizeof sends / sizeof *sends; i++) {
		struct request r = sends[i].request;
		r.small = compat;
		r.msgid = 1000 + (long long)i;
		exchange(name("send/%s", sends[i].name), &r);
	}
	message_ids();

	struct request r = device_id(5);
	int fd = open_node();
	put_request(&r);
	protect_slots(PROT_READ);
	unsigned long number = compat ? SMALL_SEND : IPMICTL_SEND_COMMAND;
	int rc = call(fd, number, at(ARG, GOOD, _IOC_SIZE(number)));
	protect_slots(PROT_READ | PROT_WRITE);
	row("send/from read-only memory", rc, "%s", rc ? "-" : answer_text(fd));
	close(fd);
}

#define DEVICE_ID .addr_len = 12, .netfn = 0x06, .cmd = 0x01

static const struct {
	const char *name;
	struct request request;
} addresses[] = {
	{ "bmc, lun 1", { DEVICE_ID, .to = BMC(15, 1) } },
	{ "bmc, lun 2", { DEVICE_ID, .to = BMC(15, 2) } },
	{ "bmc, lun 3", { DEVICE_ID, .to = BMC(15, 3) } },
	{ "bmc, lun 4", { DEVICE_ID, .to = BMC(15, 4) } },
	{ "bmc, lun 255", { DEVICE_ID, .to = BMC(15, 255) } },
	{ "bmc, lun 4, netfn 07", { DEVICE_ID, .to = BMC(15, 4), .netfn = 0x07 } },
	{ "bmc, channel 0", { DEVICE_ID, .to = BMC(0, 0) } },
	{ "bmc, channel 16", { DEVICE_ID, .to = BMC(16, 0) } },
	{ "bmc, channel -1", { DEVICE_ID, .to = BMC(-1, 0) } },
	{ "bmc, channel 0, data_len 273", { DEVICE_ID, .to = BMC(0, 0), .data_len = 273 } },
	{ "type 00", { DEVICE_ID, .to = { 0, 15, { 0 } } } },
	{ "type 0d, channel 0", { DEVICE_ID, .to = { 0x0d, 0, { 0 } } } },
	{ "type ffffffff, channel 0", { DEVICE_ID, .to = { -1, 0, { 0 } } } },
	{ "type 10c, channel 15", { DEVICE_ID, .to = { 0x10c, 15, { 0 } } } },
	{ "ipmb, channel 16", { DEVICE_ID, .to = IPMB(16, 0x82, 0) } },
	{ "ipmb, channel -1", { DEVICE_ID, .to = IPMB(-1, 0x82, 0) } },
	{ "ipmb, channel 32767", { DEVICE_ID, .to = IPMB(32767, 0x82, 0) } },
	{ "ipmb, addr_len 7", { DEVICE_ID, .to = IPMB(0, 0x82, 0), .addr_len = 7 } },
	{ "ipmb, lun 4", { DEVICE_ID, .to = IPMB(0, 0x82, 4) } },
	{ "ipmb, 263 bytes", { DEVICE_ID, .to = IPMB(0, 0x82, 0), .data_len = 263 } },
	{ "ipmb, 263 bytes, lun 4", { DEVICE_ID, .to = IPMB(0, 0x82, 4), .data_len = 263 } },
	{ "ipmb, channel 14, 263 bytes", { DEVICE_ID, .to = IPMB(14, 0x82, 0), .data_len = 263 } },
	{ "ipmb", { DEVICE_ID, .to = IPMB(0, 0x82, 0), SHORT_TIMING } },
	{ "ipmb, addr_len 8", { DEVICE_ID, .to = IPMB(0, 0x82, 0), .addr_len = 8, SHORT_TIMING } },
	{ "ipmb, lun 2", { DEVICE_ID, .to = IPMB(0, 0x82, 2), SHORT_TIMING } },
	{ "ipmb, nobody there", { DEVICE_ID, .to = IPMB(0, 0xee, 0), SHORT_TIMING } },
	{ "ipmb, odd address", { DEVICE_ID, .to = IPMB(0, 0x83, 0), SHORT_TIMING } },
	{ "ipmb, the bmc itself", { DEVICE_ID, .to = IPMB(0, 0x20, 0), SHORT_TIMING } },
	{ "ipmb, 262 bytes", { DEVICE_ID, .to = IPMB(0, 0xee, 0), .data_len = 262, SHORT_TIMING } },
	// Refused to the BMC itself; here nobody gets it.
	{ "ipmb, send message", { DEVICE_ID, .to = IPMB(0, 0xee, 0), .cmd = 0x34, SHORT_TIMING } },
	// A response on the bus, to nobody's request: what comes back is how its sending went.
	{ "ipmb, response", { DEVICE_ID, .to = IPMB(0, 0x82, 2), .netfn = 0x07, .data_len = 1, SHORT_TIMING } },
	{ "ipmb, response without data", { DEVICE_ID, .to = IPMB(0, 0x82, 2), .netfn = 0x07, SHORT_TIMING } },
	{ "broadcast", { DEVICE_ID, .to = BROADCAST(0, 0x82, 0), SHORT_TIMING } },
	{ "broadcast, nobody there",
	  { DEVICE_ID, .to = BROADCAST(0, 0xee, 0), .settime = true, .retries = 9, .retry_ms = 1000 } },
	{ "broadcast, lun 4", { DEVICE_ID, .to = BROADCAST(0, 0x82, 4) } },
	{ "broadcast, 262 bytes", { DEVICE_ID, .to = BROADCAST(0, 0x82, 0), .data_len = 262 } },
	{ "broadcast, channel 15", { DEVICE_ID, .to = BROADCAST(15, 0x82, 0) } },
	{ "lan, addr_len 8", { DEVICE_ID, .to = LAN(1, 0), .addr_len = 8 } },
	{ "lan, addr_len 11", { DEVICE_ID, .to = LAN(1, 0), .addr_len = 11 } },
	{ "lan, lun 4", { DEVICE_ID, .to = LAN(1, 4) } },
	{ "lan, 261 bytes", { DEVICE_ID, .to = LAN(1, 0), .data_len = 261 } },
	{ "lan, channel 16", { DEVICE_ID, .to = LAN(16, 0) } },
	{ "direct", { DEVICE_ID, .to = DIRECT(0, 0x82, 0, 0) } },
	{ "direct, addr_len 8", { DEVICE_ID, .to = DIRECT(0, 0x82, 0, 0), .addr_len = 8 } },
	{ "direct, addr_len 11", { DEVICE_ID, .to = DIRECT(0, 0x82, 0, 0), .addr_len = 11 } },
	{ "direct, channel 1", { DEVICE_ID, .to = DIRECT(1, 0x82, 0, 0) } },
	{ "direct, channel 15", { DEVICE_ID, .to = DIRECT(15, 0x82, 0, 0) } },
	{ "direct, odd address", { DEVICE_ID, .to = DIRECT(0, 0x83, 0, 0) } },
	{ "direct, responder's lun 4", { DEVICE_ID, .to = DIRECT(0, 0x82, 4, 0) } },
	{ "direct, requester's lun 4", { DEVICE_ID, .to = DIRECT(0, 0x82, 0, 4) } },
	{ "direct, response", { DEVICE_ID, .to = DIRECT(0, 0x82, 0, 0), .netfn = 0x07 } },
	{ "direct, 272 bytes", { DEVICE_ID, .to = DIRECT(0, 0x82, 0, 0), .data_len = 272 } },
};

static void addressing(void)
{
	for (size_t i = 0; i < sizeof addresses / sizeof *addresses; i++) {
		struct request r = addresses[i].request;
		r.small = compat;
		// The low 6 bits are the sequence number of a response.
		r.msgid = 2000 + (long long)i;
		exchange(name("to/%s", addresses[i].name), &r);
	}
	for (int channel = 0; channel < 16; channel++) {
		struct request ipmb = { DEVICE_ID, .to = IPMB(channel, 0xee, 0), .small = compat, SHORT_TIMING };
		struct request lan = { DEVICE_ID, .to = LAN(channel, 0), .small = compat, SHORT_TIMING };
		exchange(name("to/ipmb, channel %d", channel), &ipmb);
		exchange(name("to/lan, channel %d", channel), &lan);
	}
}

// Room for data that depends on the length of the answer.
#define EXACT -1
#define ONE_LESS -2

static const struct {
	const char *name;
	long data_len;
	struct room room;
} receives[] = {
	{ "plain", 272, { .addr_len = 40 } },
	{ "exact", EXACT, { .addr_len = 8 } },
	{ "one byte less", ONE_LESS, { .addr_len = 8 } },
	{ "one byte", 1, { .addr_len = 8 } },
	{ "no data", 0, { .addr_len = 8 } },
	{ "no data, null", 0, { .addr_len = 8, .data_at = NOWHERE } },
	{ "claims more data", 65535, { .addr_len = 8, .data_mapped = EXACT } },
	{ "addr_len 0", 272, { .addr_len = 0 } },
	{ "addr_len 0, null", 272, { .addr_len = 0, .addr_at = NOWHERE } },
	{ "addr_len 7", 272, { .addr_len = 7 } },
	{ "addr_len 41", 272, { .addr_len = 41 } },
	{ "addr_len ffffffff", 272, { .addr_len = 0xffffffff, .addr_mapped = 8 } },
	{ "addr null", 272, { .addr_len = 40, .addr_at = NOWHERE } },
	{ "addr hole", 272, { .addr_len = 40, .addr_at = HOLE } },
	{ "addr kernel", 272, { .addr_len = 40, .addr_at = KERNEL } },
	{ "addr cut", 272, { .addr_len = 8, .addr_at = CUT } },
	{ "data null", 272, { .addr_len = 40, .data_at = NOWHERE } },
	{ "data hole", 272, { .addr_len = 40, .data_at = HOLE } },
	{ "data kernel", 272, { .addr_len = 40, .data_at = KERNEL } },
	{ "data cut", EXACT, { .addr_len = 40, .data_at = CUT } },
	{ "arg null", 272, { .addr_len = 40, .arg_at = NOWHERE } },
	{ "arg hole", 272, { .addr_len = 40, .arg_at = HOLE } },
	{ "arg kernel", 272, { .addr_len = 40, .arg_at = KERNEL } },
	{ "arg cut", 272, { .addr_len = 40, .arg_at = CUT } },
	{ "addr_len 7, one byte less", ONE_LESS, { .addr_len = 7 } },
	{ "addr_len 7, data hole", 272, { .addr_len = 7, .data_at = HOLE } },
	{ "addr hole, one byte less", ONE_LESS, { .addr_len = 8, .addr_at = HOLE } },
	{ "all null", 0, { .addr_at = NOWHERE, .data_at = NOWHERE } },
};

// One odd RECEIVE of an answer, and what is left of it.
static void receive_oddly(const char *name, const struct request *r, struct room room, long data_len,
			  uint16_t answer_len)
{
	struct message m;
	int fd = open_node(), sent = send_request(fd, r);

	if (data_len < 0)
		data_len = answer_len - (data_len == ONE_LESS);
	if (room.data_mapped)
		room.data_mapped = answer_len;
	room.data_len = (uint16_t)data_len;
	room.small = compat;
	if (sent || !readable(fd, ANSWER_MS)) {
		row(name, sent, "nothing to receive");
	} else {
		int rc = receive(fd, &room, &m);
		bool gone = !rc || (rc == -EMSGSIZE && room.trunc), left = readable(fd, 0);
		if (gone)
			row(name, rc, "%s, %s", message_text(&m), left ? "left" : "gone");
		else
			row(name, rc, "%s: %s", left ? "left" : "gone", left ? answer_text(fd) : "-");
	}
	close(fd);
}

static void receive_from_empty(void)
{
	int fd = open_node();
	struct message m;

	for (int trunc = 0; trunc < 2; trunc++) {
		const char *what = trunc ? "trunc" : "receive";
		struct room room = { .addr_len = 40, .data_len = 272, .small = compat, .trunc = trunc };
		row(name("%s/empty", what), receive(fd, &room, &m), "-");
		room.addr_len = room.data_len = 0;
		row(name("%s/empty, no room", what), receive(fd, &room, &m), "-");
		room.addr_at = room.data_at = HOLE;
		room.addr_len = room.data_len = 40;
		row(name("%s/empty, addr and data hole", what), receive(fd, &room, &m), "-");
		room.arg_at = HOLE;
		row(name("%s/empty, arg hole", what), receive(fd, &room, &m), "-");
	}
	close(fd);
}

static void receive_twice(void)
{
	int fd = open_node();
	struct message m;

	row("twice/send", send_device_id(fd, 31), "-");
	row("twice/send again", send_device_id(fd, 32), "-");
	row("twice/first", 0, "%s", answer_text(fd));
	row("twice/second", 0, "%s", answer_text(fd));
	row("twice/third", receive_whole(fd, &m), "-");
	close(fd);
}

static void receiving(void)
{
	struct message m;
	int fd = open_node();

	if (send_device_id(fd, 1) || !readable(fd, ANSWER_MS) || receive_whole(fd, &m)) {
		fprintf(stderr, "ioctl-table: %s does not answer Get Device ID\n", node);
		exit(1);
	}
	close(fd);

	struct request bmc = device_id(7), lan = { DEVICE_ID, .to = LAN(1, 0), .small = compat, SHORT_TIMING };
	struct room short_of_a_lan_address = { .addr_len = 11 };
	receive_from_empty();
	for (int trunc = 0; trunc < 2; trunc++)
		for (size_t i = 0; i < sizeof receives / sizeof *receives; i++) {
			struct room room = receives[i].room;
			room.trunc = trunc;
			receive_oddly(name("%s/%s", trunc ? "trunc" : "receive", receives[i].name), &bmc, room,
				      receives[i].data_len, m.data_len);
		}
	// Where channel 1 is a LAN, how Send Message went there is answered from a longer address.
	receive_oddly("receive/lan, addr_len 11", &lan, short_of_a_lan_address, 272, 0);
	receive_twice();
}
