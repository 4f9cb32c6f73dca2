// The system that the C library asks, with nothing behind it: a module that imported the real one would be refused. What is printed goes to
// the broker's log, line by line; there is no file, no variable, no argument; a clock or a random number can't be had.

#include "millpond_guest.h"

#include <string.h>

enum { SUCCESS = 0, BAD_DESCRIPTOR = 8, NOT_SUPPORTED = 58, LINE_SIZE_MAX = 1024 };

typedef struct {
    const uint8_t *at;
    size_t size;
} piece;

static char line[2][LINE_SIZE_MAX + 1];
static size_t line_size[2];

static void print(int stream, uint8_t byte) {
    if (byte != '\n' && line_size[stream] < LINE_SIZE_MAX) line[stream][line_size[stream]++] = (char)byte;
    if (byte != '\n' && line_size[stream] < LINE_SIZE_MAX) return;
    line[stream][line_size[stream]] = 0;
    line_size[stream] = 0;
    mp_log(stream == 0 ? MP_INFO : MP_ERROR, line[stream]);
}

#define SYSTEM(name) __imported_wasi_snapshot_preview1_##name

int32_t SYSTEM(fd_write)(int32_t file, int32_t pieces, int32_t count, int32_t written) {
    if (file != 1 && file != 2) return BAD_DESCRIPTOR;
    const piece *piece_at = (const piece *)(uintptr_t)pieces;
    size_t size = 0;
    for (int32_t index = 0; index < count; index++) {
        for (size_t at = 0; at < piece_at[index].size; at++) print(file - 1, piece_at[index].at[at]);
        size += piece_at[index].size;
    }
    *(size_t *)(uintptr_t)written = size;
    return SUCCESS;
}

// A character device, so that every line is written when it ends.
int32_t SYSTEM(fd_fdstat_get)(int32_t file, int32_t status) {
    if (file != 1 && file != 2) return BAD_DESCRIPTOR;
    memset((void *)(uintptr_t)status, 0, 24);
    *(uint8_t *)(uintptr_t)status = 2;
    *(uint64_t *)(uintptr_t)(status + 8) = 0x40; // may be written to, and nothing else
    return SUCCESS;
}

int32_t SYSTEM(fd_close)(int32_t file) { return (void)file, SUCCESS; }
int32_t SYSTEM(fd_read)(int32_t file, int32_t to, int32_t count, int32_t read) { return (void)file, (void)to, (void)count, (void)read, BAD_DESCRIPTOR; }
int32_t SYSTEM(fd_seek)(int32_t file, int64_t by, int32_t from, int32_t to) { return (void)file, (void)by, (void)from, (void)to, BAD_DESCRIPTOR; }
int32_t SYSTEM(fd_prestat_get)(int32_t file, int32_t to) { return (void)file, (void)to, BAD_DESCRIPTOR; }
int32_t SYSTEM(fd_prestat_dir_name)(int32_t file, int32_t to, int32_t size) { return (void)file, (void)to, (void)size, BAD_DESCRIPTOR; }
int32_t SYSTEM(clock_time_get)(int32_t clock, int64_t precision, int32_t to) { return (void)clock, (void)precision, (void)to, NOT_SUPPORTED; }
int32_t SYSTEM(random_get)(int32_t to, int32_t size) { return (void)to, (void)size, NOT_SUPPORTED; }
int32_t SYSTEM(environ_get)(int32_t names, int32_t buffer) { return (void)names, (void)buffer, SUCCESS; }

int32_t SYSTEM(environ_sizes_get)(int32_t count, int32_t size) {
    *(size_t *)(uintptr_t)count = 0;
    *(size_t *)(uintptr_t)size = 0;
    return SUCCESS;
}

_Noreturn void SYSTEM(proc_exit)(int32_t code) {
    (void)code;
    mp_log(MP_ERROR, "the module called exit or abort");
    __builtin_trap();
}
