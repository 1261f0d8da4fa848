// SPDX-License-Identifier: MIT OR Apache-2.0
// Cases of ioctl-table: a handle as an open file.

#define ALL_EVENTS (POLLIN | POLLPRI | POLLOUT | POLLRDNORM | POLLRDBAND | POLLWRNORM | POLLWRBAND)

static const char *poll_text(int fd, short events)
{
	static const struct {
		short bit;
		const char *name;
	} bits[] = {
#define B(x) { POLL##x, #x }
		B(IN), B(PRI), B(OUT), B(RDNORM), B(RDBAND), B(WRNORM), B(WRBAND), B(ERR), B(HUP), B(NVAL),
#undef B
	};
	static char text[96];
	struct pollfd p = { fd, events, 0 };
	int ready = poll(&p, 1, 0), len = snprintf(text, sizeof text, "%d", ready);

	for (size_t i = 0; i < sizeof bits / sizeof *bits; i++)
		if (p.revents & bits[i].bit)
			len += snprintf(text + len, sizeof text - len, " %s", bits[i].name);
	return text;
}

static void polling(void)
{
	int fd = open_node();

	row("poll/before", 0, "%s", poll_text(fd, ALL_EVENTS));
	row("poll/send", send_device_id(fd, 41), "-");
	row("poll/send more", send_device_id(fd, 42), "-");
	readable(fd, ANSWER_MS);
	row("poll/one answer", 0, "%s", poll_text(fd, ALL_EVENTS));
	row("poll/not asked for", 0, "%s", poll_text(fd, 0));
	row("poll/asked to write", 0, "%s", poll_text(fd, POLLOUT));
	row("poll/first", 0, "%s", answer_text(fd));
	readable(fd, ANSWER_MS);
	row("poll/still", 0, "%s", poll_text(fd, ALL_EVENTS));
	row("poll/second", 0, "%s", answer_text(fd));
	row("poll/after", 0, "%s", poll_text(fd, ALL_EVENTS));
	close(fd);
}

static void other_pollers(void)
{
	struct epoll_event wanted = { .events = EPOLLIN | EPOLLOUT }, got = { 0 };
	struct timeval none = { 0, 0 }, limit = { ANSWER_MS / 1000, 0 };
	int fd = open_node(), ep = epoll_create1(EPOLL_CLOEXEC), rc;
	fd_set set;

	rc = epoll_ctl(ep, EPOLL_CTL_ADD, fd, &wanted);
	row("epoll/add", rc ? -errno : 0, "-");
	rc = epoll_wait(ep, &got, 1, 0);
	row("epoll/before", rc, "%x", rc ? got.events : 0);
	send_device_id(fd, 43);
	rc = epoll_wait(ep, &got, 1, ANSWER_MS);
	row("epoll/answer", rc, "%x", rc ? got.events : 0);
	row("epoll/received", 0, "%s", answer_text(fd));
	rc = epoll_wait(ep, &got, 1, 0);
	row("epoll/after", rc, "%x", rc ? got.events : 0);
	close(ep);

	FD_ZERO(&set);
	FD_SET(fd, &set);
	row("select/before", select(fd + 1, &set, NULL, NULL, &none), "-");
	send_device_id(fd, 44);
	FD_SET(fd, &set);
	row("select/answer", select(fd + 1, &set, NULL, NULL, &limit), "-");
	FD_ZERO(&set);
	FD_SET(fd, &set);
	row("select/writable", select(fd + 1, NULL, &set, NULL, &none), "-");
	row("select/received", 0, "%s", answer_text(fd));
	close(fd);
}

static long result(long rc)
{
	return rc < 0 ? -errno : rc;
}

static void reading_and_writing(void)
{
	char buffer[64] = { 0 };
	struct iovec v[] = { { buffer, 8 }, { buffer + 8, 8 } };
	int fd = open_node();

	row("file/read", (int)result(read(fd, buffer, sizeof buffer)), "-");
	row("file/read a byte", (int)result(read(fd, buffer, 1)), "-");
	row("file/readv", (int)result(readv(fd, v, 2)), "-");
	row("file/pread", (int)result(pread(fd, buffer, sizeof buffer, 8)), "-");
	row("file/write", (int)result(write(fd, buffer, sizeof buffer)), "-");
	row("file/writev", (int)result(writev(fd, v, 2)), "-");
	row("file/pwrite", (int)result(pwrite(fd, buffer, sizeof buffer, 8)), "-");
	row("file/lseek set", (int)result(lseek(fd, 100, SEEK_SET)), "-");
	row("file/lseek cur", (int)result(lseek(fd, -5, SEEK_CUR)), "-");
	row("file/lseek end", (int)result(lseek(fd, 0, SEEK_END)), "-");
	row("file/lseek 99", (int)result(lseek(fd, 0, 99)), "-");
	row("file/fsync", (int)result(fsync(fd)), "-");
	row("file/ftruncate", (int)result(ftruncate(fd, 0)), "-");
	void *m = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	row("file/mmap", m == MAP_FAILED ? -errno : 0, "-");
	roundtrip("file/then", fd, fd, 45);
	send_device_id(fd, 46);
	readable(fd, ANSWER_MS);
	int rc = (int)result(read(fd, buffer, sizeof buffer));
	row("file/read an answer", rc, "%s", answer_text(fd));
	close(fd);
}

static void open_modes(void)
{
	static const struct {
		const char *name;
		int flags;
	} modes[] = {
		{ "read only", O_RDONLY }, { "write only", O_WRONLY }, { "non-blocking", O_RDWR | O_NONBLOCK },
		{ "append", O_RDWR | O_APPEND }, { "truncate", O_RDWR | O_TRUNC }, { "sync", O_RDWR | O_SYNC },
	};

	for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
		struct message m;
		int fd = open_as(modes[i].flags);
		row(name("open/%s, empty", modes[i].name), receive_whole(fd, &m), "-");
		roundtrip(name("open/%s, send", modes[i].name), fd, fd, 47);
		close(fd);
	}
	int fd = open_node();
	close(fd);
	row("open/closed", send_device_id(fd, 48), "-");
}

static void files(void)
{
	polling();
	other_pollers();
	reading_and_writing();
	open_modes();
}

static void two_handles(void)
{
	struct request guid = device_id(61);
	int a = open_node(), b = open_node();
	struct message m;

	guid.cmd = 0x08;
	row("two/first sends", send_device_id(a, 61), "-");
	row("two/second sends", send_request(b, &guid), "-");
	row("two/second gets", 0, "%s", answer_text(b));
	row("two/first gets", 0, "%s", answer_text(a));
	row("two/first has no more", receive_whole(a, &m), "-");
	row("two/second has no more", receive_whole(b, &m), "-");
	close(a);
	close(b);
}

static void duplicate(void)
{
	int fd = open_node(), twin = dup(fd);

	roundtrip("dup/send", fd, twin, 62);
	roundtrip("dup/send on the twin", twin, fd, 63);
	send_device_id(fd, 64);
	row("dup/close one", close(fd), "-");
	row("dup/receive on the other", 0, "%s", answer_text(twin));
	roundtrip("dup/send on the other", twin, twin, 65);
	close(twin);
}

// The parent sends, the child receives what it inherited.
static void forked(void)
{
	char text[512] = "";
	int fd = open_node(), ends[2];
	pid_t child = pipe(ends) ? -1 : fork();

	if (child == 0) {
		const char *answer = answer_text(fd);
		_exit(write(ends[1], answer, strlen(answer)) < 0);
	}
	close(ends[1]);
	row("fork/parent sends", send_device_id(fd, 66), "-");
	ssize_t len = read(ends[0], text, sizeof text - 1);
	row("fork/child receives", 0, "%s", len > 0 ? text : "nothing");
	close(ends[0]);
	waitpid(child, NULL, 0);
	roundtrip("fork/child has ended", fd, fd, 67);
	close(fd);
}

static void killed(void)
{
	pid_t child = fork();

	if (child == 0) {
		int fd = open_node();
		for (int i = 0; i < 10; i++)
			send_device_id(fd, 68);
		raise(SIGKILL);
	}
	int status = 0, fd = open_node();
	waitpid(child, &status, 0);
	row("killed/child", 0, "signal %d", WTERMSIG(status));
	roundtrip("killed/others", fd, fd, 69);
	close(fd);
}

static void closed_with_answers_pending(void)
{
	struct message m;
	int fd = open_node();

	for (int i = 0; i < 20; i++)
		send_device_id(fd, 70);
	row("pending/close", close(fd), "-");
	fd = open_node();
	row("pending/empty", receive_whole(fd, &m), "-");
	roundtrip("pending/send", fd, fd, 71);
	row("pending/no more", receive_whole(fd, &m), "-");
	fcntl(fd, F_SETFL, O_NONBLOCK);
	roundtrip("pending/send without waiting", fd, fd, 72);
	close(fd);
}

static void sharing(void)
{
	two_handles();
	duplicate();
	forked();
	killed();
	closed_with_answers_pending();
}

// max_msgs_per_user of ipmi_msghandler is 100; beyond it, which error comes first?
static void full_handle(int fd)
{
	struct request r = device_id(1);

	row("limit/next", send_request(fd, &r), "-");
	r.netfn = 0x07;
	row("limit/next, netfn 07", send_request(fd, &r), "-");
	r = device_id(1);
	r.to.channel = 3;
	row("limit/next, bad address", send_request(fd, &r), "-");
	r = device_id(1);
	r.data_len = 272;
	row("limit/next, data_len 272", send_request(fd, &r), "-");
	r.data_len = 273;
	row("limit/next, data_len 273", send_request(fd, &r), "-");
	r = device_id(1);
	r.data_at = HOLE;
	r.data_len = 1;
	row("limit/next, data hole", send_request(fd, &r), "-");
}

static void limits(void)
{
	struct message m;
	static bool seen[1000];
	int fd = open_node(), other = open_node(), sent = 0, got = 0, right = 0, rc;

	while (sent < 999 && (rc = send_device_id(fd, sent)) == 0)
		sent++;
	row("limit/sent", rc, "%d", sent);
	full_handle(fd);
	roundtrip("limit/other handle", other, other, 2000);
	readable(fd, ANSWER_MS);
	rc = receive_whole(fd, &m);
	row("limit/receive one", rc, "-");
	row("limit/room for one", send_device_id(fd, m.msgid), "-");
	row("limit/and no more", send_device_id(fd, 2001), "-");
	// Not their order: a message sent while the driver takes the next from its queue overtakes that.
	for (; got < sent && readable(fd, ANSWER_MS) && !receive_whole(fd, &m); got++) {
		bool own = m.msgid >= 0 && m.msgid < sent && !seen[m.msgid] && m.data_len > 0 && m.data[0] == 0;
		if (own)
			seen[m.msgid] = true;
		right += own;
	}
	row("limit/received", 0, "%d, %d of them once and right", got, right);
	row("limit/empty", receive_whole(fd, &m), "-");
	roundtrip("limit/room again", fd, fd, 2002);
	close(fd);
	close(other);
}
