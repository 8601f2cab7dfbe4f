/* Records what a process does to the files under POWERCUT_ROOT, in order, with content.

   Preloaded into the child of tests/powercut. Every operation that changes the disk is done and
   written to POWERCUT_LOG under one mutex, so the log is the order in which it happened. A write
   to the file POWERCUT_MARK is no write: it is logged as a mark of the child, and when it begins
   with '!' it is an order to this recorder:
     !fault MASK ERRNO ONE_IN   operations fail, one in ONE_IN (MASK 1 writes, 2 syncs, 4 names; 0 ends it)
     !crash N                   the process ends after N further operations, at once when N is 0
   fsync itself is only logged: the test decides what it would have saved. Files are named by the
   path their descriptor has now (/proc/self/fd), so nothing has to follow open, dup and close. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#if __SIZEOF_LONG__ != 8
#error "file offsets are passed to system calls in one register here"
#endif

enum kind { START, CREATE, TRUNCATE, WRITE, SYNC, RENAME, UNLINK, RMDIR, MKDIR, ALLOCATE, MARK, UNKNOWN };
enum { WRITES = 1, SYNCS = 2, NAMES = 4 };
#define MAGIC 0x70637574u

struct header {
    uint32_t magic;
    uint8_t kind, ok;
    uint16_t path, second, nothing;
    uint32_t nothing_either;
    uint64_t offset, length;
};

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX], marker[PATH_MAX];
static size_t root_length;
static int log_file = -1;
static int fault_mask, fault_errno, fault_one_in = 1;
static uint64_t dice = 88172645463325252ull;
static long crash_in = -1;

static void record(enum kind kind, int ok, const char *path, const char *second, uint64_t offset, const void *data,
                   uint64_t length, int with_data)
{
    struct header h = { .magic = MAGIC, .kind = kind, .ok = ok, .offset = offset, .length = length };
    const char *inside = path && strlen(path) > root_length ? path + root_length + 1 : "";
    const char *other = second && strlen(second) > root_length ? second + root_length + 1 : "";
    h.path = strlen(inside);
    h.second = strlen(other);
    struct iovec parts[4] = { { &h, sizeof h },
                              { (void *)inside, h.path },
                              { (void *)other, h.second },
                              { (void *)data, with_data ? length : 0 } };
    size_t total = sizeof h + h.path + h.second + (with_data ? length : 0);
    if (syscall(SYS_writev, log_file, parts, 4) != (long)total) {
        static const char lament[] = "powercut recorder: the log can't be written\n";
        syscall(SYS_write, 2, lament, sizeof lament - 1);
        syscall(SYS_exit_group, 99);
    }
    if (kind != MARK && kind != START && crash_in > 0 && --crash_in == 0)
        syscall(SYS_exit_group, 9);
}

__attribute__((constructor)) static void start(void)
{
    const char *r = getenv("POWERCUT_ROOT"), *l = getenv("POWERCUT_LOG"), *m = getenv("POWERCUT_MARK");
    const char *s = getenv("POWERCUT_DICE");
    if (!r || !l || !m)
        return;
    snprintf(root, sizeof root, "%s", r);
    snprintf(marker, sizeof marker, "%s", m);
    root_length = strlen(root);
    if (s)
        dice ^= strtoull(s, NULL, 10) * 0x9e3779b97f4a7c15ull;
    log_file = syscall(SYS_openat, AT_FDCWD, l, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log_file >= 0)
        record(START, 1, NULL, NULL, 0, NULL, 0, 0);
}

static int failing(int what)
{
    if (!(fault_mask & what))
        return 0;
    dice ^= dice << 13;
    dice ^= dice >> 7;
    dice ^= dice << 17;
    if (dice % (uint64_t)fault_one_in)
        return 0;
    errno = fault_errno;
    return 1;
}

static int under_root(const char *path)
{
    return log_file >= 0 && !strncmp(path, root, root_length) && (path[root_length] == '/' || !path[root_length]);
}

/* The path a descriptor stands for now; 0 when it is not ours or was unlinked. */
static int path_of(int fd, char *path)
{
    char link[64];
    if (log_file < 0)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long n = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
    if (n <= 0)
        return 0;
    path[n] = 0;
    static const char gone[] = " (deleted)";
    if (n > (long)sizeof gone && !strcmp(path + n - (sizeof gone - 1), gone))
        return 0;
    return 1;
}

static int ours(int fd, char *path)
{
    return path_of(fd, path) && under_root(path);
}

static int resolve(int dir, const char *name, char *path)
{
    if (log_file < 0 || !name)
        return 0;
    if (name[0] == '/') {
        snprintf(path, PATH_MAX, "%s", name);
    } else {
        char base[PATH_MAX];
        if (dir == AT_FDCWD ? !getcwd(base, sizeof base) : !path_of(dir, base))
            return 0;
        if (snprintf(path, PATH_MAX, "%s/%s", base, name) >= PATH_MAX)
            return 0;
    }
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        path[--n] = 0;
    return under_root(path);
}

static void mark(const char *text, size_t n)
{
    char order[128];
    snprintf(order, sizeof order, "%.*s", (int)n, text);
    record(MARK, 1, NULL, NULL, 0, text, n, 1);
    if (sscanf(order, "!fault %d %d %d", &fault_mask, &fault_errno, &fault_one_in) == 3)
        return;
    long after;
    if (sscanf(order, "!crash %ld", &after) == 1) {
        if (after == 0)
            syscall(SYS_exit_group, 9);
        crash_in = after;
    }
}

static int do_open(int dir, const char *name, int flags, mode_t mode)
{
    char path[PATH_MAX];
    if (!(flags & (O_CREAT | O_TRUNC)) || !resolve(dir, name, path))
        return syscall(SYS_openat, dir, name, flags, mode);
    pthread_mutex_lock(&gate);
    struct stat info;
    int fd = -1, there = syscall(SYS_newfstatat, AT_FDCWD, path, &info, 0) == 0;
    if ((!there && (flags & O_CREAT) && failing(NAMES)) || (there && (flags & O_TRUNC) && failing(WRITES)))
        goto out;
    fd = syscall(SYS_openat, dir, name, flags, mode);
    if (fd >= 0 && (flags & O_TMPFILE) == O_TMPFILE)
        record(UNKNOWN, 1, path, NULL, 0, NULL, 0, 0);
    else if (fd >= 0 && !there)
        record(CREATE, 1, path, NULL, 0, NULL, 0, 0);
    else if (fd >= 0 && (flags & O_TRUNC))
        record(TRUNCATE, 1, path, NULL, 0, NULL, 0, 0);
out:
    pthread_mutex_unlock(&gate);
    return fd;
}

#define MODE(flags)                                                                                                    \
    mode_t mode = 0;                                                                                                   \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                                                                             \
        va_list list;                                                                                                  \
        va_start(list, flags);                                                                                         \
        mode = va_arg(list, mode_t);                                                                                   \
        va_end(list);                                                                                                  \
    }
int open(const char *name, int flags, ...) { MODE(flags) return do_open(AT_FDCWD, name, flags, mode); }
int open64(const char *name, int flags, ...) { MODE(flags) return do_open(AT_FDCWD, name, flags, mode); }
int openat(int dir, const char *name, int flags, ...) { MODE(flags) return do_open(dir, name, flags, mode); }
int openat64(int dir, const char *name, int flags, ...) { MODE(flags) return do_open(dir, name, flags, mode); }
int creat(const char *name, mode_t mode) { return do_open(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *name, mode_t mode) { return creat(name, mode); }

static ssize_t do_write(int fd, const void *data, size_t n, off_t at, int positioned)
{
    char path[PATH_MAX];
    if (!path_of(fd, path))
        goto plain;
    if (!strcmp(path, marker)) {
        pthread_mutex_lock(&gate);
        mark(data, n);
        pthread_mutex_unlock(&gate);
        return n;
    }
    if (!under_root(path))
        goto plain;
    pthread_mutex_lock(&gate);
    ssize_t done = -1;
    size_t want = n;
    if (failing(WRITES)) {
        /* Half of a write may get through before the disk is full. */
        want = fault_errno == ENOSPC && n >= 8192 && (dice >> 40) % 2 ? n / 2 : 0;
        if (!want)
            goto out;
    }
    off_t offset = at;
    if (!positioned) {
        struct stat info;
        int flags = syscall(SYS_fcntl, fd, F_GETFL);
        offset = (flags & O_APPEND) && !syscall(SYS_fstat, fd, &info) ? info.st_size : syscall(SYS_lseek, fd, 0, SEEK_CUR);
        done = syscall(SYS_write, fd, data, want);
    } else {
        done = syscall(SYS_pwrite64, fd, data, want, at);
    }
    if (done > 0)
        record(WRITE, 1, path, NULL, offset, data, done, 1);
out:
    pthread_mutex_unlock(&gate);
    return done;
plain:
    return positioned ? syscall(SYS_pwrite64, fd, data, n, at) : syscall(SYS_write, fd, data, n);
}

ssize_t write(int fd, const void *data, size_t n) { return do_write(fd, data, n, 0, 0); }
ssize_t pwrite(int fd, const void *data, size_t n, off_t at) { return do_write(fd, data, n, at, 1); }
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) { return do_write(fd, data, n, at, 1); }

/* One after the other: a vectored write may be short, and a short one is honest. */
static ssize_t do_writev(int fd, const struct iovec *parts, int count, off_t at, int positioned)
{
    ssize_t total = 0;
    for (int i = 0; i < count; i++) {
        if (!parts[i].iov_len)
            continue;
        ssize_t done = do_write(fd, parts[i].iov_base, parts[i].iov_len, at + total, positioned);
        if (done < 0)
            return total ? total : -1;
        total += done;
        if ((size_t)done < parts[i].iov_len)
            break;
    }
    return total;
}
ssize_t writev(int fd, const struct iovec *parts, int count) { return do_writev(fd, parts, count, 0, 0); }
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) { return do_writev(fd, parts, count, at, 1); }
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) { return do_writev(fd, parts, count, at, 1); }

static int do_sync(int fd, long call)
{
    char path[PATH_MAX];
    if (!ours(fd, path))
        return syscall(call, fd);
    pthread_mutex_lock(&gate);
    int failed = failing(SYNCS);
    record(SYNC, !failed, path, NULL, 0, NULL, 0, 0);
    pthread_mutex_unlock(&gate);
    if (failed)
        errno = fault_errno;
    return failed ? -1 : 0;
}
int fsync(int fd) { return do_sync(fd, SYS_fsync); }
int fdatasync(int fd) { return do_sync(fd, SYS_fdatasync); }
/* Starts writing back but asks no barrier and saves no size: it promises nothing here. */
int sync_file_range(int fd, off64_t at, off64_t n, unsigned flags)
{
    char path[PATH_MAX];
    return ours(fd, path) ? 0 : syscall(SYS_sync_file_range, fd, at, n, flags);
}

#define CHANGE(what, kind, path, second, offset, length, call)                                                         \
    pthread_mutex_lock(&gate);                                                                                         \
    int outcome = -1;                                                                                                  \
    if (!failing(what)) {                                                                                              \
        outcome = (call);                                                                                              \
        if (outcome == 0)                                                                                              \
            record(kind, 1, path, second, offset, NULL, length, 0);                                                    \
    }                                                                                                                  \
    pthread_mutex_unlock(&gate);                                                                                       \
    return outcome;

int ftruncate(int fd, off_t length)
{
    char path[PATH_MAX];
    if (!ours(fd, path))
        return syscall(SYS_ftruncate, fd, length);
    CHANGE(WRITES, TRUNCATE, path, NULL, 0, length, syscall(SYS_ftruncate, fd, length))
}
int ftruncate64(int fd, off64_t length) { return ftruncate(fd, length); }
int truncate(const char *name, off_t length)
{
    char path[PATH_MAX];
    if (!resolve(AT_FDCWD, name, path))
        return syscall(SYS_truncate, name, length);
    CHANGE(WRITES, TRUNCATE, path, NULL, 0, length, syscall(SYS_truncate, name, length))
}
int truncate64(const char *name, off64_t length) { return truncate(name, length); }
int fallocate(int fd, int mode, off_t at, off_t length)
{
    char path[PATH_MAX];
    if (!ours(fd, path))
        return syscall(SYS_fallocate, fd, mode, at, length);
    CHANGE(WRITES, mode ? UNKNOWN : ALLOCATE, path, NULL, at, length, syscall(SYS_fallocate, fd, mode, at, length))
}
int fallocate64(int fd, int mode, off64_t at, off64_t length) { return fallocate(fd, mode, at, length); }
int posix_fallocate(int fd, off_t at, off_t length) { return fallocate(fd, 0, at, length) ? errno : 0; }
int posix_fallocate64(int fd, off64_t at, off64_t length) { return posix_fallocate(fd, at, length); }

static int do_rename(int from, const char *old, int to, const char *new, unsigned flags)
{
    char a[PATH_MAX], b[PATH_MAX];
    int in = resolve(from, old, a), out = resolve(to, new, b);
    if (!in && !out)
        return syscall(SYS_renameat2, from, old, to, new, flags);
    CHANGE(NAMES, in && out && !flags ? RENAME : UNKNOWN, a, b, 0, 0, syscall(SYS_renameat2, from, old, to, new, flags))
}
int rename(const char *old, const char *new) { return do_rename(AT_FDCWD, old, AT_FDCWD, new, 0); }
int renameat(int from, const char *old, int to, const char *new) { return do_rename(from, old, to, new, 0); }
int renameat2(int from, const char *old, int to, const char *new, unsigned flags)
{
    return do_rename(from, old, to, new, flags);
}

int unlinkat(int dir, const char *name, int flags)
{
    char path[PATH_MAX];
    if (!resolve(dir, name, path))
        return syscall(SYS_unlinkat, dir, name, flags);
    CHANGE(NAMES, flags & AT_REMOVEDIR ? RMDIR : UNLINK, path, NULL, 0, 0, syscall(SYS_unlinkat, dir, name, flags))
}
int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }
int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }

int mkdirat(int dir, const char *name, mode_t mode)
{
    char path[PATH_MAX];
    if (!resolve(dir, name, path))
        return syscall(SYS_mkdirat, dir, name, mode);
    CHANGE(NAMES, MKDIR, path, NULL, 0, 0, syscall(SYS_mkdirat, dir, name, mode))
}
int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }

/* What the test's disk does not know must not pass unseen. */
int linkat(int from, const char *old, int to, const char *new, int flags)
{
    char path[PATH_MAX];
    if (!resolve(to, new, path))
        return syscall(SYS_linkat, from, old, to, new, flags);
    CHANGE(NAMES, UNKNOWN, path, NULL, 0, 0, syscall(SYS_linkat, from, old, to, new, flags))
}
int link(const char *old, const char *new) { return linkat(AT_FDCWD, old, AT_FDCWD, new, 0); }
int symlinkat(const char *old, int to, const char *new)
{
    char path[PATH_MAX];
    if (!resolve(to, new, path))
        return syscall(SYS_symlinkat, old, to, new);
    CHANGE(NAMES, UNKNOWN, path, NULL, 0, 0, syscall(SYS_symlinkat, old, to, new))
}
int symlink(const char *old, const char *new) { return symlinkat(old, AT_FDCWD, new); }
