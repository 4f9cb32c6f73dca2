// The system that the C library asks (WASI), with nothing behind it: a module that imported the real one would be refused. What is printed
// goes to the broker's log, line by line; there is no file, no variable, no argument; a clock or a random number can't be had. All functions
// are here, addresses as whole numbers, under both names that they are imported by: by what is C in zig's C library, and by
// what is Zig.

#include "millpond_guest.h"

#include <string.h>
#include <wasi/api.h>

#define SYSTEM(name) __imported_wasi_snapshot_preview1_##name
#define IN_ZIG(name) __asm__(#name "|wasi_snapshot_preview1")

enum { LINE_SIZE_MAX = 1024 };

static char line[2][LINE_SIZE_MAX + 1];
static size_t line_size[2];

static void print(int stream, uint8_t byte) {
    if (byte != '\n') {
        line[stream][line_size[stream]++] = (char)byte;
        if (line_size[stream] < LINE_SIZE_MAX) return;
    }
    line[stream][line_size[stream]] = 0;
    line_size[stream] = 0;
    mp_log(stream == 0 ? MP_INFO : MP_ERROR, line[stream]);
}

static bool is_stream(int32_t file) {
    return file == 1 || file == 2;
}

int32_t SYSTEM(fd_write)(int32_t file, int32_t pieces_at, int32_t count, int32_t written) {
    if (!is_stream(file)) return __WASI_ERRNO_BADF;
    const __wasi_ciovec_t *pieces = (const __wasi_ciovec_t *)(intptr_t)pieces_at;
    size_t size = 0;
    for (int32_t index = 0; index < count; index++) {
        for (size_t at = 0; at < pieces[index].buf_len; at++) print(file - 1, pieces[index].buf[at]);
        size += pieces[index].buf_len;
    }
    *(size_t *)(intptr_t)written = size;
    return __WASI_ERRNO_SUCCESS;
}

// A character device, so that the library writes every line when it ends.
int32_t SYSTEM(fd_fdstat_get)(int32_t file, int32_t at) {
    if (!is_stream(file)) return __WASI_ERRNO_BADF;
    __wasi_fdstat_t *status = (__wasi_fdstat_t *)(intptr_t)at;
    memset(status, 0, sizeof *status);
    status->fs_filetype = __WASI_FILETYPE_CHARACTER_DEVICE;
    status->fs_rights_base = __WASI_RIGHTS_FD_WRITE;
    return __WASI_ERRNO_SUCCESS;
}

static int32_t none(int32_t count, int32_t size) {
    *(size_t *)(intptr_t)count = 0;
    *(size_t *)(intptr_t)size = 0;
    return __WASI_ERRNO_SUCCESS;
}

int32_t SYSTEM(args_sizes_get)(int32_t count, int32_t size) { return none(count, size); }
int32_t SYSTEM(environ_sizes_get)(int32_t count, int32_t size) { return none(count, size); }

_Noreturn void SYSTEM(proc_exit)(int32_t code) {
    (void)code;
    mp_log(MP_ERROR, "the module called exit");
    __builtin_trap();
}

int32_t SYSTEM(sched_yield)(void) { return __WASI_ERRNO_SUCCESS; }

#define BOTH(name, result, types, values) \
    result zig_##name types IN_ZIG(name); \
    result zig_##name types { return SYSTEM(name) values; }

BOTH(fd_write, int32_t, (int32_t file, int32_t pieces, int32_t count, int32_t written), (file, pieces, count, written))
BOTH(fd_fdstat_get, int32_t, (int32_t file, int32_t at), (file, at))
BOTH(args_sizes_get, int32_t, (int32_t count, int32_t size), (count, size))
BOTH(environ_sizes_get, int32_t, (int32_t count, int32_t size), (count, size))
BOTH(sched_yield, int32_t, (void), ())

_Noreturn void zig_proc_exit(int32_t code) IN_ZIG(proc_exit);
_Noreturn void zig_proc_exit(int32_t code) { SYSTEM(proc_exit)(code); }

#define NOT_HERE(name, ...) \
    int32_t SYSTEM(name)(__VA_ARGS__) { return __WASI_ERRNO_NOTSUP; } \
    int32_t zig_##name(__VA_ARGS__) IN_ZIG(name); \
    int32_t zig_##name(__VA_ARGS__) { return __WASI_ERRNO_NOTSUP; }
#define NO_FILE(name, ...) \
    int32_t SYSTEM(name)(__VA_ARGS__) { return __WASI_ERRNO_BADF; } \
    int32_t zig_##name(__VA_ARGS__) IN_ZIG(name); \
    int32_t zig_##name(__VA_ARGS__) { return __WASI_ERRNO_BADF; }

NOT_HERE(args_get, int32_t, int32_t)
NOT_HERE(clock_res_get, int32_t, int32_t)
NOT_HERE(clock_time_get, int32_t, int64_t, int32_t)
NOT_HERE(environ_get, int32_t, int32_t)
NOT_HERE(poll_oneoff, int32_t, int32_t, int32_t, int32_t)
NOT_HERE(random_get, int32_t, int32_t)
NO_FILE(fd_advise, int32_t, int64_t, int64_t, int32_t)
NO_FILE(fd_allocate, int32_t, int64_t, int64_t)
NO_FILE(fd_close, int32_t)
NO_FILE(fd_datasync, int32_t)
NO_FILE(fd_fdstat_set_flags, int32_t, int32_t)
NO_FILE(fd_fdstat_set_rights, int32_t, int64_t, int64_t)
NO_FILE(fd_filestat_get, int32_t, int32_t)
NO_FILE(fd_filestat_set_size, int32_t, int64_t)
NO_FILE(fd_filestat_set_times, int32_t, int64_t, int64_t, int32_t)
NO_FILE(fd_pread, int32_t, int32_t, int32_t, int64_t, int32_t)
NO_FILE(fd_prestat_dir_name, int32_t, int32_t, int32_t)
NO_FILE(fd_prestat_get, int32_t, int32_t)
NO_FILE(fd_pwrite, int32_t, int32_t, int32_t, int64_t, int32_t)
NO_FILE(fd_read, int32_t, int32_t, int32_t, int32_t)
NO_FILE(fd_readdir, int32_t, int32_t, int32_t, int64_t, int32_t)
NO_FILE(fd_renumber, int32_t, int32_t)
NO_FILE(fd_seek, int32_t, int64_t, int32_t, int32_t)
NO_FILE(fd_sync, int32_t)
NO_FILE(fd_tell, int32_t, int32_t)
NO_FILE(path_create_directory, int32_t, int32_t, int32_t)
NO_FILE(path_filestat_get, int32_t, int32_t, int32_t, int32_t, int32_t)
NO_FILE(path_filestat_set_times, int32_t, int32_t, int32_t, int32_t, int64_t, int64_t, int32_t)
NO_FILE(path_link, int32_t, int32_t, int32_t, int32_t, int32_t, int32_t, int32_t)
NO_FILE(path_open, int32_t, int32_t, int32_t, int32_t, int32_t, int64_t, int64_t, int32_t, int32_t)
NO_FILE(path_readlink, int32_t, int32_t, int32_t, int32_t, int32_t, int32_t)
NO_FILE(path_remove_directory, int32_t, int32_t, int32_t)
NO_FILE(path_rename, int32_t, int32_t, int32_t, int32_t, int32_t, int32_t)
NO_FILE(path_symlink, int32_t, int32_t, int32_t, int32_t, int32_t)
NO_FILE(path_unlink_file, int32_t, int32_t, int32_t)
NO_FILE(sock_accept, int32_t, int32_t, int32_t)
NO_FILE(sock_recv, int32_t, int32_t, int32_t, int32_t, int32_t, int32_t)
NO_FILE(sock_send, int32_t, int32_t, int32_t, int32_t, int32_t)
NO_FILE(sock_shutdown, int32_t, int32_t)
