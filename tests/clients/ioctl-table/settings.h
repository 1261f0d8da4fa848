// SPDX-License-Identifier: MIT OR Apache-2.0
// Cases of ioctl-table: what a handle sets.

static int register_one(int fd, bool on, uint8_t netfn, uint8_t cmd)
{
	struct ipmi_cmdspec spec = { netfn, cmd };
	unsigned long number = on ? IPMICTL_REGISTER_FOR_CMD : IPMICTL_UNREGISTER_FOR_CMD;
	return call_with(fd, number, &spec, sizeof spec);
}

static int register_chans(int fd, bool on, unsigned int netfn, unsigned int cmd, unsigned int chans)
{
	struct ipmi_cmdspec_chans spec = { netfn, cmd, chans };
	unsigned long number = on ? IPMICTL_REGISTER_FOR_CMD_CHANS : IPMICTL_UNREGISTER_FOR_CMD_CHANS;
	return call_with(fd, number, &spec, sizeof spec);
}

// Steps on two handles, in order. Commands are of the OEM range and nobody sends them.
static const struct {
	char handle; // 'a', 'b'; 'A', 'B': the same closed and opened again first
	bool on;
	unsigned int netfn, cmd;
	long long chans; // -1: the call without channels
} registrations[] = {
	{ 'a', false, 0x2e, 0x71, -1 },		{ 'a', false, 0x2e, 0x71, 1 },
	{ 'a', true, 0x2e, 0x71, -1 },		{ 'a', true, 0x2e, 0x71, -1 },
	{ 'b', true, 0x2e, 0x71, -1 },		{ 'b', true, 0x2e, 0x71, 1 },
	{ 'b', true, 0x2e, 0x72, -1 },		{ 'b', true, 0x30, 0x71, -1 },
	{ 'b', false, 0x2e, 0x71, -1 },		{ 'a', false, 0x2e, 0x71, -1 },
	{ 'a', false, 0x2e, 0x71, -1 },		{ 'b', true, 0x2e, 0x71, -1 },
	// Closing gives back.
	{ 'B', false, 0x2e, 0x71, -1 },		{ 'a', true, 0x2e, 0x71, -1 },
	// Channel by channel.
	{ 'A', true, 0x2e, 0x73, 0x1 },		{ 'a', true, 0x2e, 0x73, 0x2 },
	{ 'a', true, 0x2e, 0x73, 0x3 },		{ 'b', true, 0x2e, 0x73, 0x6 },
	{ 'b', true, 0x2e, 0x73, 0xc },		{ 'b', true, 0x2e, 0x73, -1 },
	{ 'b', false, 0x2e, 0x73, 0x3 },	{ 'a', false, 0x2e, 0x73, 0x7 },
	{ 'a', false, 0x2e, 0x73, 0x1 },	{ 'b', true, 0x2e, 0x73, 0x3 },
	{ 'b', false, 0x2e, 0x73, 0x4 },	{ 'b', false, 0x2e, 0x73, 0x4 },
	{ 'a', true, 0x2e, 0x73, 0x4 },		{ 'b', false, 0x2e, 0x73, -1 },
	{ 'b', false, 0x2e, 0x73, -1 },		{ 'a', false, 0x2e, 0x73, -1 },
	// Taken for all, given back in part.
	{ 'A', true, 0x2e, 0x74, -1 },		{ 'a', false, 0x2e, 0x74, 0x8001 },
	{ 'B', true, 0x2e, 0x74, 0x8000 },	{ 'b', true, 0x2e, 0x74, 0x4000 },
	{ 'a', true, 0x2e, 0x74, 0x1 },		{ 'a', false, 0x2e, 0x74, -1 },
	// No channel, and channels that are none.
	{ 'A', true, 0x2e, 0x75, 0 },		{ 'a', true, 0x2e, 0x75, 0 },
	{ 'a', false, 0x2e, 0x75, 0 },		{ 'B', true, 0x2e, 0x75, 0x10000 },
	{ 'a', true, 0x2e, 0x75, 0x30000 },	{ 'b', false, 0x2e, 0x75, 0x10000 },
	{ 'b', false, 0x2e, 0x75, -1 },		{ 'a', true, 0x2e, 0x75, -1 },
	// Only the low 8 bits of each.
	{ 'A', true, 0x12e, 0x176, 0x1 },	{ 'B', true, 0x2e, 0x76, 0x1 },
	{ 'a', false, 0x2e, 0x76, 0x1 },	{ 'b', true, 0x2f, 0x76, 0xffff },
	{ 'b', true, 0xff, 0xff, -1 },		{ 'b', false, 0xff, 0xff, -1 },
};

static void registering(void)
{
	int fds[] = { open_node(), open_node() };

	for (size_t i = 0; i < sizeof registrations / sizeof *registrations; i++) {
		char handle = registrations[i].handle, lower = handle | 0x20;
		unsigned int netfn = registrations[i].netfn, cmd = registrations[i].cmd;
		long long chans = registrations[i].chans;
		bool on = registrations[i].on;
		int *fd = &fds[lower - 'a'];
		const char *verb = on ? "register" : "unregister";

		if (handle != lower) {
			close(*fd);
			*fd = open_node();
		}
		int rc = chans < 0 ? register_one(*fd, on, (uint8_t)netfn, (uint8_t)cmd)
				   : register_chans(*fd, on, netfn, cmd, (unsigned int)chans);
		if (chans < 0)
			row(name("%s/%02zu %c %02x/%02x", verb, i, handle, netfn, cmd), rc, "-");
		else
			row(name("%s/%02zu %c %02x/%02x %llx", verb, i, handle, netfn, cmd, chans), rc, "-");
	}
	close(fds[0]);
	close(fds[1]);
}

// Addresses and LUNs are one per interface in Linux 6.1, so they are set back at once.

static const struct {
	const char *name;
	unsigned long set, get, legacy_set, legacy_get;
	unsigned int normal;
	uint8_t values[4];
} sources[] = {
	{ "my address", IPMICTL_SET_MY_CHANNEL_ADDRESS_CMD, IPMICTL_GET_MY_CHANNEL_ADDRESS_CMD,
	  IPMICTL_SET_MY_ADDRESS_CMD, IPMICTL_GET_MY_ADDRESS_CMD, 0x20, { 0x82, 0x83, 0x00, 0xff } },
	{ "my lun", IPMICTL_SET_MY_CHANNEL_LUN_CMD, IPMICTL_GET_MY_CHANNEL_LUN_CMD, IPMICTL_SET_MY_LUN_CMD,
	  IPMICTL_GET_MY_LUN_CMD, 2, { 1, 3, 4, 0xff } },
};

static int channel_value(int fd, unsigned long number, uint16_t channel, uint8_t *value)
{
	struct ipmi_channel_lun_address_set set = { channel, *value };
	int rc = call_with(fd, number, &set, sizeof set);
	*value = set.value;
	return rc;
}

static void show_channel_value(const char *name, int fd, unsigned long number, uint16_t channel)
{
	uint8_t value = 0xaa;
	int rc = channel_value(fd, number, channel, &value);

	if (rc)
		row(name, rc, "-");
	else
		row(name, rc, "%02x", value);
}

static void show_legacy_value(const char *name, int fd, unsigned long number)
{
	unsigned int value = 0xaaaaaaaa;
	int rc = call_with(fd, number, &value, sizeof value);

	row(name, rc, "%08x", value);
}

static void source_of_channel(size_t i, int fd, uint16_t channel)
{
	show_channel_value(name("%s/channel %u", sources[i].name, channel), fd, sources[i].get, channel);
	for (size_t v = 0; v < sizeof sources[i].values; v++) {
		uint8_t value = sources[i].values[v];
		int rc = channel_value(fd, sources[i].set, channel, &value);
		row(name("%s/channel %u set %02x", sources[i].name, channel, value), rc, "-");
		show_channel_value(name("%s/channel %u then", sources[i].name, channel), fd, sources[i].get,
				   channel);
	}
	uint8_t normal = (uint8_t)sources[i].normal;
	channel_value(fd, sources[i].set, channel, &normal);
}

static void source_settings(void)
{
	static const uint16_t channels[] = { 0, 1, 7, 14, 15, 16, 255, 65535 };

	for (size_t i = 0; i < sizeof sources / sizeof *sources; i++) {
		int fd = open_node();
		unsigned int value = 0x12345679;

		for (uint16_t c = 0; c < 16; c++)
			show_channel_value(name("%s/default %u", sources[i].name, c), fd, sources[i].get, c);
		for (size_t c = 0; c < sizeof channels / sizeof *channels; c++)
			source_of_channel(i, fd, channels[c]);
		show_legacy_value(name("%s/legacy", sources[i].name), fd, sources[i].legacy_get);
		row(name("%s/legacy set", sources[i].name),
		    call_with(fd, sources[i].legacy_set, &value, sizeof value), "-");
		show_legacy_value(name("%s/legacy then", sources[i].name), fd, sources[i].legacy_get);
		show_channel_value(name("%s/legacy is channel 0", sources[i].name), fd, sources[i].get, 0);
		show_channel_value(name("%s/legacy is not channel 1", sources[i].name), fd, sources[i].get, 1);
		value = sources[i].normal;
		call_with(fd, sources[i].legacy_set, &value, sizeof value);
		show_legacy_value(name("%s/legacy normal", sources[i].name), fd, sources[i].legacy_get);
		close(fd);
	}
}

static void show_timing(const char *name, int fd)
{
	struct ipmi_timing_parms t = { 77, 77 };
	int rc = call_with(fd, IPMICTL_GET_TIMING_PARMS_CMD, &t, sizeof t);

	row(name, rc, "%d %u", t.retries, t.retry_time_ms);
}

static void timing_settings(void)
{
	static const struct ipmi_timing_parms values[] = {
		{ 0, 1000 }, { INT_MAX, UINT_MAX }, { INT_MIN, 0 }, { -2, 1 },
	};
	int fd = open_node(), other = open_node();

	show_timing("timing/default", fd);
	for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
		struct ipmi_timing_parms t = values[i];
		row(name("timing/set %d %u", t.retries, t.retry_time_ms),
		    call_with(fd, IPMICTL_SET_TIMING_PARMS_CMD, &t, sizeof t), "-");
		show_timing("timing/then", fd);
	}
	show_timing("timing/other handle", other);

	// What a plain SEND_COMMAND goes by: one try of a second instead of five of two.
	struct ipmi_timing_parms once = { 0, 1000 };
	struct request r = { DEVICE_ID, .to = IPMB(0, 0xee, 0), .small = compat };
	call_with(fd, IPMICTL_SET_TIMING_PARMS_CMD, &once, sizeof once);
	int rc = send_request(fd, &r);
	row("timing/used", rc, "%s", rc ? "-" : answer_text(fd));
	close(fd);
	close(other);
}

static void show_mode(const char *name, int fd)
{
	int mode = 77, rc = call_with(fd, IPMICTL_GET_MAINTENANCE_MODE_CMD, &mode, sizeof mode);

	row(name, rc, "%d", mode);
}

static void maintenance_mode(void)
{
	static const int modes[] = {
		IPMI_MAINTENANCE_MODE_OFF, IPMI_MAINTENANCE_MODE_ON, IPMI_MAINTENANCE_MODE_ON, 3, -1, INT_MAX, INT_MIN,
		0x102, IPMI_MAINTENANCE_MODE_AUTO, IPMI_MAINTENANCE_MODE_AUTO,
	};
	int fd = open_node(), other = open_node();

	show_mode("maintenance/default", fd);
	for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
		int mode = modes[i];
		row(name("maintenance/set %d", mode),
		    call_with(fd, IPMICTL_SET_MAINTENANCE_MODE_CMD, &mode, sizeof mode), "-");
		show_mode("maintenance/then", fd);
		show_mode("maintenance/other handle", other);
	}
	close(fd);
	close(other);
}

static void event_settings(void)
{
	static const int values[] = { 0, 1, 1, 2, -1, 0x100, 0, 0 };
	int fd = open_node();

	for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
		int value = values[i];
		row(name("events/set %d", value), call_with(fd, IPMICTL_SET_GETS_EVENTS_CMD, &value, sizeof value), "-");
	}
	close(fd);
}

static void settings(void)
{
	source_settings();
	timing_settings();
	maintenance_mode();
	event_settings();
}
