// What a module keeps between batches. What the broker returns is held until the record is through, and freed before the next one.

#include "internal.h"

#include <stdlib.h>
#include <string.h>

// Entries that are asked for at once.
enum { PAGE_ENTRIES = 256 };

// A value or a message, or a page of a scan.
struct mp_held {
    struct mp_held *next;
    uint8_t *bytes;
    mp_owned_entries page;
};

static struct mp_held *all_held;

static struct mp_held *hold(uint8_t *bytes) {
    struct mp_held *held = mp_allocate(sizeof *held);
    *held = (struct mp_held){all_held, bytes, {NULL, 0}};
    return all_held = held;
}

static void free_page(mp_owned_entries *page) {
    for (size_t index = 0; index < page->count; index++) {
        free(page->at[index].key.at);
        free(page->at[index].value.at);
    }
    free(page->at);
    *page = (mp_owned_entries){NULL, 0};
}

void mp_state_release(void) {
    while (all_held != NULL) {
        struct mp_held *held = all_held;
        all_held = held->next;
        free(held->bytes);
        free_page(&held->page);
        free(held);
    }
}

static mp_bytes lent(mp_owned bytes) {
    return (mp_bytes){bytes.at, bytes.size};
}

mp_bytes mp_state_get(mp_bytes key) {
    mp_optional value;
    host_state_get(key.at, key.size, &value);
    if (!value.is_some) return (mp_bytes){NULL, 0};
    hold(value.bytes.at);
    return lent(value.bytes);
}

const char *mp_state_put(mp_bytes key, mp_bytes value) {
    mp_outcome outcome;
    host_state_put(key.at, key.size, value.at, value.size, &outcome);
    if (!outcome.is_error) return NULL;
    char *message = mp_allocate(outcome.message.size + 1);
    memcpy(message, outcome.message.at, outcome.message.size);
    message[outcome.message.size] = 0;
    free(outcome.message.at);
    hold((uint8_t *)message);
    return message;
}

void mp_state_delete(mp_bytes key) {
    host_state_delete(key.at, key.size);
}

uint64_t mp_state_get_u64(mp_bytes key) {
    mp_bytes value = mp_state_get(key);
    if (value.size != 8) return 0;
    uint64_t number = 0;
    for (size_t index = 0; index < 8; index++) number = number << 8 | value.at[index];
    return number;
}

const char *mp_state_put_u64(mp_bytes key, uint64_t number) {
    uint8_t value[8];
    for (size_t index = 8; index-- > 0; number >>= 8) value[index] = (uint8_t)number;
    return mp_state_put(key, (mp_bytes){value, sizeof value});
}

bool mp_state_get_f64(mp_bytes key, double *number) {
    if (mp_state_get(key).size != 8) return false;
    uint64_t bits = mp_state_get_u64(key);
    memcpy(number, &bits, sizeof bits);
    return true;
}

const char *mp_state_put_f64(mp_bytes key, double number) {
    uint64_t bits;
    memcpy(&bits, &number, sizeof bits);
    return mp_state_put_u64(key, bits);
}

mp_scan mp_state_scan(mp_bytes prefix, mp_bytes after, uint32_t limit) {
    return (mp_scan){prefix, after, limit, NULL, 0};
}

// Fetches the page behind the one that was given. False where there is none.
static bool turn(mp_scan *scan) {
    mp_bytes after = scan->after;
    if (scan->page == NULL) {
        scan->page = hold(NULL);
    } else {
        after = lent(scan->page->page.at[scan->page->page.count - 1].key);
    }
    mp_owned_entries page;
    uint32_t limit = scan->left < PAGE_ENTRIES ? scan->left : PAGE_ENTRIES;
    host_state_scan(scan->prefix.at, scan->prefix.size, after.at != NULL, after.at, after.size, limit, &page);
    free_page(&scan->page->page);
    scan->page->page = page;
    scan->at = 0;
    if (page.count == 0) scan->left = 0;
    return page.count > 0;
}

bool mp_state_next(mp_scan *scan, mp_entry *entry) {
    if (scan->left == 0) return false;
    if ((scan->page == NULL || scan->at == scan->page->page.count) && !turn(scan)) return false;
    mp_owned_entry next = scan->page->page.at[scan->at++];
    *entry = (mp_entry){lent(next.key), lent(next.value)};
    if (scan->left != UINT32_MAX) scan->left--;
    return true;
}
