// Write modules that run inside the Millpond broker in C: transforms, which change records before they are stored, partitioners, which
// place them, and modules that derive topics from others.
//
//     #include "millpond_guest.h"
//
//     static int64_t bytes_max;
//
//     const char *guest_init(const mp_params *params) {
//         const char *names[] = {"bytes_max"};
//         mp_params_only(params, names, 1);
//         bytes_max = mp_param_int(params, "bytes_max", 1024);
//         return mp_params_error(params);
//     }
//
//     const char *guest_transform(const mp_record *record, mp_output *out) {
//         if ((int64_t)record->value.size <= bytes_max) mp_keep(out, record); // neither kept nor emitted: dropped
//         return NULL;
//     }
//
// A guest defines `guest_init` and, as the world is that it is built for, `guest_transform`, `guest_partition` or `guest_derive`. A text that
// is returned is an error: it refuses the attachment, or fails the batch at this record, and is shown to whoever asked or sent it. There is
// no clock, no random number, no file and no network; memory, time and output are limited. What a guest remembers between batches is a cache
// at most, but for its state: there may be several instances, and each may be replaced at any time. `printf` writes to the broker's log.
//
//  one record, numbers are zig-zag varints of seven bits in a byte, the lowest first (KIP-98)
//  +--------+------------+-----------+--------+---------+-----+-----------+-------+--------------+---------+
//  | length | attributes | timestamp | offset | key     | key | value     | value | header count | headers |
//  |        | 1 byte     | delta     | delta  | length  |     | length    |       |              |         |
//  +--------+------------+-----------+--------+---------+-----+-----------+-------+--------------+---------+
//           |<------------------------------ length ------------------------------------------------------>|
//  a length of -1 is a key or a value that is not there; a header is name length, name, value length, value
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Bytes that belong to somebody else. Without an address there are none: no key, no value.
typedef struct {
    const uint8_t *at;
    size_t size;
} mp_bytes;

// The bytes of a text that ends in 0.
mp_bytes mp_text(const char *text);

bool mp_equal(mp_bytes one, mp_bytes other);

typedef struct {
    mp_bytes name;
    mp_bytes value;
} mp_header;

// Headers as they lie in a record.
typedef struct {
    int32_t count;
    mp_bytes bytes;
} mp_headers;

// Takes the next header. False at the end.
bool mp_next_header(mp_headers *headers, mp_header *header);

// One record, borrowed from its batch.
typedef struct {
    mp_bytes key;
    mp_bytes value;
    mp_headers headers;
    int64_t timestamp;    // in milliseconds since 1970-01-01 UTC, as the producer says
    int32_t offset_delta; // its place in the batch
    mp_bytes encoded;
} mp_record;

// A record to be stored in place of another; `mp_changed` makes one that changes nothing.
typedef struct {
    mp_bytes key;
    mp_bytes value;
    mp_headers headers;     // of the record that it was
    const mp_header *added; // behind these
    size_t added_count;
    int64_t timestamp;
    int32_t offset_delta;
} mp_change;

mp_change mp_changed(const mp_record *record);

// What holds for all records of a batch.
typedef struct {
    mp_bytes topic;
    bool has_partition;
    uint32_t partition;
    int64_t base_timestamp;
    uint32_t record_count;
} mp_batch;

// Takes the records to be stored. A record that is neither kept nor emitted is dropped, and its offset stays unused.
typedef struct mp_output mp_output;

// Stores the record as it came. This is the fast way: neighbours are copied together.
void mp_keep(mp_output *out, const mp_record *record);

// Stores a changed record. Several may be made of one: then the broker numbers the records of the batch anew.
void mp_emit(mp_output *out, const mp_change *change);

// Takes the records for topics, which are counted from 0 in the order in which they were named. The broker chooses the partition by the key.
typedef struct mp_outputs mp_outputs;

// What takes the records for one of them: `mp_keep(mp_to(out, 1), record)`. Where there is no such topic the batch fails at this record.
mp_output *mp_to(mp_outputs *out, uint32_t target);

// Names and values, as they were given to `millpond transform attach TOPIC MODULE --param NAME=VALUE`.
typedef struct mp_params mp_params;

// The value of a setting, or a default. The text ends in 0 and stays for ever.
const char *mp_param_text(const mp_params *params, const char *name, const char *otherwise);
double mp_param_number(const mp_params *params, const char *name, double otherwise);
int64_t mp_param_int(const mp_params *params, const char *name, int64_t otherwise);

// Refuses settings that the module does not have, so that a misspelt name is not silently without effect.
void mp_params_only(const mp_params *params, const char *const *names, size_t count);

// The first thing that was wrong with a setting, or NULL: what `guest_init` returns.
const char *mp_params_error(const mp_params *params);

// A topic that a module may write to.
typedef struct {
    mp_bytes name;
    uint32_t partition_count;
} mp_target;

// The topics that a module was attached with which derives them, in the order in which they were named; gives their number. They stay for ever.
size_t mp_targets(const mp_params *params, const mp_target **targets);

// What a field of a JSON object is.
typedef enum {
    MP_JSON_BROKEN, // the value is no JSON object
    MP_JSON_MISSING,
    MP_JSON_NULL,
    MP_JSON_BOOL,
    MP_JSON_NUMBER,
    MP_JSON_STRING,
    MP_JSON_ARRAY,
    MP_JSON_OBJECT,
} mp_json;

// Looks at all of a JSON object and finds a field of its outermost level; if the name is there several times, the last counts. `text` is
// the field's own JSON.
mp_json mp_json_field(mp_bytes object, const char *name, mp_bytes *text);

// The same for a number.
mp_json mp_json_number(mp_bytes object, const char *name, double *number);

// What a module keeps between batches: keys and values, for an attachment with derived topics that was granted some bytes (`--state-bytes`).
//
// There is one state for each partition of the source. It changes together with the position in the source and with what was written: after
// any crash, all of it is there or nothing. What was changed in a batch on which the module failed is taken back. It is there in modules of
// the worlds stateful-derive and stateful-transform, while a batch is processed, and not in `guest_init`. In a native test it is in memory,
// see millpond_testing.h.
//
// What these functions take belongs to the guest, and they keep nothing of it. What they return belongs to the SDK and stays until the
// guest's function for this record returns; the guest frees nothing.
#define MP_STATE
#if defined MILLPOND_WORLD && !defined MILLPOND_STATE && defined __has_attribute
#if __has_attribute(unavailable)
#undef MP_STATE
#define MP_STATE __attribute__((unavailable("this world has no state: build the module for stateful-derive or stateful-transform")))
#endif
#endif

// The value of a key, without an address if it has none.
MP_STATE mp_bytes mp_state_get(mp_bytes key);

// Gives a key a value. Returns NULL, or in words that the key is longer than 1 KiB, or that the state would have more bytes than were granted:
// those of all keys and values, and 64 for each. Nothing is changed then.
MP_STATE const char *mp_state_put(mp_bytes key, mp_bytes value);

// Removes a key, if it is there.
MP_STATE void mp_state_delete(mp_bytes key);

// A number that `mp_state_put_u64` has put, eight bytes, the highest first; 0 where there is none.
MP_STATE uint64_t mp_state_get_u64(mp_bytes key);
MP_STATE const char *mp_state_put_u64(mp_bytes key, uint64_t number);

// A number that `mp_state_put_f64` has put, eight bytes, the highest first. False where there is none.
MP_STATE bool mp_state_get_f64(mp_bytes key, double *number);
MP_STATE const char *mp_state_put_f64(mp_bytes key, double number);

// One entry of the state.
typedef struct {
    mp_bytes key;
    mp_bytes value;
} mp_entry;

// A place among the entries of the state.
typedef struct {
    mp_bytes prefix, after;
    uint32_t left;
    struct mp_held *page;
    size_t at;
} mp_scan;

// The entries whose key begins with `prefix` and comes behind `after`, in bytewise order of the keys, `limit` at most: UINT32_MAX is no limit,
// and an `after` without an address is the beginning. `prefix` and `after` must stay while it is used:
//
//     mp_scan scan = mp_state_scan(mp_text("pump-"), (mp_bytes){NULL, 0}, UINT32_MAX);
//     for (mp_entry entry; mp_state_next(&scan, &entry);) ...
MP_STATE mp_scan mp_state_scan(mp_bytes prefix, mp_bytes after, uint32_t limit);

// Takes the next entry, which stays until the next call with this scan. False at the end. The entries are fetched a page at a time, and the
// state may be changed meanwhile: what is changed behind the page is seen.
MP_STATE bool mp_state_next(mp_scan *scan, mp_entry *entry);

typedef enum { MP_DEBUG, MP_INFO, MP_WARN, MP_ERROR } mp_level;

// A line for the broker's log, which limits their length and number.
void mp_log(mp_level level, const char *message);

// The partition of a key: where a Kafka client puts a record with this key if nobody says otherwise (murmur2).
uint32_t mp_partition_of(mp_bytes key, uint32_t partition_count);

// What a guest defines.
const char *guest_init(const mp_params *params);
const char *guest_transform(const mp_record *record, mp_output *out);
const char *guest_partition(const mp_record *record, uint32_t partition_count, uint32_t *partition);
const char *guest_derive(const mp_record *record, mp_outputs *out);
