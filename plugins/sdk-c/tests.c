// Tests of the SDK on the machine that it is compiled on: records, settings, JSON, state and targets, without the exports that a broker calls.

#include "internal.h"
#include "millpond_testing.h"

#include <string.h>

#define CHECK MP_CHECK

enum { BASE = 1000 };

static mp_owned encoded(const mp_change *changes, size_t count) {
    mp_output out = {.base_timestamp = BASE};
    for (size_t index = 0; index < count; index++) mp_emit(&out, &changes[index]);
    return mp_finish(&out);
}

static void the_bytes_are_kafkas(void) {
    mp_header header = {mp_text("h"), {NULL, 0}};
    mp_change change = {.key = mp_text("k"), .value = mp_text("va"), .added = &header, .added_count = 1, .timestamp = BASE + 300};
    const uint8_t expected[] = {26, 0, 0xd8, 4, 0, 2, 0x6b, 4, 0x76, 0x61, 2, 2, 0x68, 1};
    mp_owned section = encoded(&change, 1);
    CHECK(section.size == sizeof expected && memcmp(section.at, expected, section.size) == 0);
    free(section.at);
}

static void what_is_written_is_read_again(void) {
    static const char large[70000];
    mp_header headers[] = {{mp_text("a"), mp_text("1")}, {mp_text("a"), {NULL, 0}}};
    const int64_t times[] = {BASE, INT64_MIN, INT64_MAX, 0, -1, BASE + ((int64_t)1 << 40)};
    for (size_t time = 0; time < sizeof times / sizeof *times; time++) {
        mp_change change = {
            .key = {(const uint8_t *)large, sizeof large},
            .value = {NULL, 0},
            .added = headers,
            .added_count = 2,
            .timestamp = times[time],
            .offset_delta = 12345,
        };
        mp_owned section = encoded(&change, 1);
        mp_record record;
        size_t at = 0;
        CHECK(mp_take_record((mp_bytes){section.at, section.size}, &at, BASE, &record) && at == section.size);
        CHECK(record.timestamp == times[time] && record.offset_delta == 12345 && mp_equal(record.key, change.key) && record.value.at == NULL);
        mp_header header;
        CHECK(mp_next_header(&record.headers, &header) && mp_equal(header.value, mp_text("1")));
        CHECK(mp_next_header(&record.headers, &header) && mp_equal(header.name, mp_text("a")) && header.value.at == NULL);
        CHECK(!mp_next_header(&record.headers, &header));
        for (size_t size = 0; size < section.size; size += 1 + size / 100) {
            mp_bytes cut = {section.at, size};
            CHECK(!mp_take_record(cut, &(size_t){0}, BASE, &record));
        }
        free(section.at);
    }
}

static void runs_of_kept_records_lie_between_emitted_ones(void) {
    const char *values[] = {"0", "1", "2", "3", "4", "5"};
    mp_change changes[6] = {0};
    for (int index = 0; index < 6; index++) changes[index] = (mp_change){.value = mp_text(values[index]), .offset_delta = index};
    mp_owned before = encoded(changes, 6);
    mp_output out = {.section = {before.at, before.size}, .base_timestamp = BASE};
    mp_record record;
    for (size_t at = 0; at < before.size;) {
        CHECK(mp_take_record(out.section, &at, BASE, &record));
        mp_change change = mp_changed(&record);
        if (record.offset_delta == 3) mp_emit(&out, &change);
        else if (record.offset_delta != 1) mp_keep(&out, &record);
    }
    mp_owned after = mp_finish(&out);
    size_t at = 0;
    for (int index = 0; index < 6; index++) {
        if (index == 1) continue;
        CHECK(mp_take_record((mp_bytes){after.at, after.size}, &at, BASE, &record) && record.offset_delta == index);
        CHECK(mp_equal(record.value, mp_text(values[index])));
    }
    CHECK(at == after.size);
    mp_output all = {.section = {before.at, before.size}, .base_timestamp = BASE};
    for (at = 0; at < before.size;) {
        CHECK(mp_take_record(all.section, &at, BASE, &record));
        mp_keep(&all, &record);
    }
    CHECK(mp_finish(&all).at == before.at); // nothing was copied
    free(before.at);
    free(after.at);
}

static void settings_have_types_and_a_misspelt_one_is_refused(void) {
    char *texts[] = {"n", "1", "n", "2.5", "i", "-3", "bad", "ten"};
    mp_owned pairs[8];
    for (int index = 0; index < 8; index++) pairs[index] = (mp_owned){(uint8_t *)texts[index], strlen(texts[index])};
    mp_params params = {.pairs = pairs, .count = 4};
    CHECK(mp_param_number(&params, "n", 0) == 2.5 && mp_param_int(&params, "i", 0) == -3 && mp_param_number(&params, "m", 7) == 7);
    CHECK(mp_params_error(&params) == NULL);
    mp_param_number(&params, "bad", 0);
    CHECK(strcmp(mp_params_error(&params), "the setting `bad` can't be `ten`: it is not a number") == 0);
    mp_params other = {.pairs = pairs, .count = 4};
    const char *names[] = {"n", "i"};
    mp_params_only(&other, names, 2);
    CHECK(strcmp(mp_params_error(&other), "there is no setting `bad`; there are: n, i") == 0);
}

static void json_is_looked_at_as_a_whole(void) {
    double number;
    CHECK(mp_json_number(mp_text(" {\"a\":[{}],\"n\" : -1.5e1 , \"z\":\"\\\"}\"} "), "n", &number) == MP_JSON_NUMBER && number == -15);
    CHECK(mp_json_number(mp_text("{\"n\":1,\"n\":\"x\"}"), "n", &number) == MP_JSON_STRING);
    CHECK(mp_json_number(mp_text("{\"\\u006e\":2}"), "n", &number) == MP_JSON_NUMBER && number == 2);
    CHECK(mp_json_number(mp_text("{\"\\ud83c\\udf21\":2}"), "\xf0\x9f\x8c\xa1", &number) == MP_JSON_NUMBER);
    CHECK(mp_json_number(mp_text("{\"inner\":{\"n\":1}}"), "n", &number) == MP_JSON_MISSING);
    const char *broken[] = {"", "{", "{}x", "[]", "1", "{\"n\":01}", "{\"n\":1,}", "{\"n\":1 \"m\":2}", "{\"n\":tru}", "{\"n\":1.}", "{n:1}",
                            "{\"a\":\"\n\"}", "{\"a\":\"\\x\"}", "{\"a\":\"\\u12g4\"}", "{\"a\":\"\xff\"}", "{\"a\":\"\xc0\x80\"}", "{\"a\":\"\xed\xa0\x80\"}"};
    for (size_t index = 0; index < sizeof broken / sizeof *broken; index++) {
        CHECK(mp_json_number(mp_text(broken[index]), "n", &number) == MP_JSON_BROKEN);
    }
    char deep[4096] = "{\"a\":";
    memset(deep + 5, '[', 4000);
    CHECK(mp_json_number(mp_text(deep), "n", &number) == MP_JSON_BROKEN);
}

static void placement_is_kafkas(void) {
    // From Kafka's own UtilsTest: -973932308 and -790332482.
    CHECK(mp_partition_of(mp_text("21"), 1000) == (UINT32_C(3321034988) & 0x7fffffff) % 1000);
    CHECK(mp_partition_of(mp_text("foobar"), 1000) == (UINT32_C(3504634814) & 0x7fffffff) % 1000);
    CHECK(mp_partition_of(mp_text("x"), 0) == 0);
}

static void a_state_keeps_what_is_put_in_order_and_within_its_limit(void) {
    mp_test_grant_state(2 * (64 + 1 + 8));
    mp_bytes a = mp_text("a"), b = mp_text("b"), c = mp_text("c");
    CHECK(mp_state_get(a).at == NULL && mp_state_get_u64(a) == 0);
    CHECK(mp_state_put_u64(a, UINT64_MAX - 1) == NULL && mp_state_put_f64(b, -0.5) == NULL);
    const char *full = mp_state_put(c, mp_text(""));
    CHECK(strcmp(full, "the state is full: it would have 211 bytes, and 146 are granted (`--state-bytes`)") == 0);
    CHECK(mp_state_put_u64(a, 7) == NULL && mp_state_put(c, mp_text("12345678")) != NULL);
    static const uint8_t large[1025];
    CHECK(strstr(mp_state_put((mp_bytes){large, sizeof large}, a), "1025 bytes is too long") != NULL);
    double number;
    CHECK(mp_state_get_u64(a) == 7 && mp_state_get_f64(b, &number) && number == -0.5 && !mp_state_get_f64(c, &number));
    mp_bytes bytes = mp_state_get(a);
    CHECK(bytes.size == 8 && bytes.at[0] == 0 && bytes.at[7] == 7); // the highest first
    mp_state_delete(b);
    mp_state_delete(b);
    CHECK(mp_state_put(c, mp_text("")) == NULL && mp_state_get(c).at != NULL && mp_state_get(c).size == 0);
    mp_state_release();
}

static size_t scanned(const char *prefix, const char *after, uint32_t limit, const char *first) {
    mp_scan scan = mp_state_scan(mp_text(prefix), after == NULL ? (mp_bytes){NULL, 0} : mp_text(after), limit);
    size_t count = 0;
    for (mp_entry entry; mp_state_next(&scan, &entry); count++) {
        CHECK(count > 0 || mp_equal(entry.key, mp_text(first)));
        CHECK(mp_equal(entry.value, mp_text("x")));
    }
    mp_entry none;
    CHECK(!mp_state_next(&scan, &none));
    mp_state_release();
    return count;
}

static void a_scan_goes_over_any_number_of_pages(void) {
    mp_test_grant_state(SIZE_MAX);
    for (int number = 700; number-- > 0;) {
        char key[16];
        snprintf(key, sizeof key, "a%04d", number);
        CHECK(mp_state_put(mp_text(key), mp_text("x")) == NULL);
    }
    CHECK(mp_state_put(mp_text("b"), mp_text("x")) == NULL);
    CHECK(scanned("a", NULL, UINT32_MAX, "a0000") == 700 && scanned("", NULL, UINT32_MAX, "a0000") == 701);
    CHECK(scanned("a", "a0511", UINT32_MAX, "a0512") == 188 && scanned("a01", "a", UINT32_MAX, "a0100") == 100);
    CHECK(scanned("a", NULL, 257, "a0000") == 257 && scanned("a", NULL, 0, "") == 0 && scanned("a0700", NULL, 9, "") == 0);
    // Half of it is left in the middle, and what is behind the page is changed.
    mp_scan scan = mp_state_scan(mp_text("a"), (mp_bytes){NULL, 0}, UINT32_MAX);
    size_t count = 0;
    for (mp_entry entry; mp_state_next(&scan, &entry); count++) {
        if (count == 0) mp_state_delete(mp_text("a0699"));
    }
    CHECK(count == 699);
    mp_state_release();
}

// The guest of the next test: remembers how often it saw a key, and writes where the value says.
const char *guest_init(const mp_params *params) {
    const mp_target *targets;
    size_t count = mp_targets(params, &targets);
    return count == 2 && mp_equal(targets[1].name, mp_text("two")) ? NULL : "name two topics";
}

const char *guest_derive(const mp_record *record, mp_outputs *out) {
    uint64_t seen = mp_state_get_u64(record->key) + 1;
    const char *error = mp_state_put_u64(record->key, seen);
    if (error != NULL) return error;
    char text[21];
    snprintf(text, sizeof text, "%llu", (unsigned long long)seen);
    mp_change change = mp_changed(record);
    change.value = mp_text(text);
    for (size_t index = 0; index < record->value.size; index++) {
        uint8_t byte = record->value.at[index];
        if (byte == 'k') mp_keep(mp_to(out, 0), record);
        else mp_emit(mp_to(out, byte - '0'), &change);
    }
    return NULL;
}

static void records_go_where_the_guest_sends_them(void) {
    mp_test_grant_state(2 * (64 + 1 + 8));
    const char *one[] = {"one", NULL}, *two[] = {"one", "two", NULL};
    CHECK(strcmp(mp_test_start(NULL, one), "name two topics") == 0 && mp_test_start(NULL, two) == NULL);
    mp_change input[] = {
        {.key = mp_text("a"), .value = mp_text("1")}, {.key = mp_text("a"), .value = mp_text("k")}, {.key = mp_text("a"), .value = mp_text("k10")},
        {.key = mp_text("b"), .value = mp_text("")},  {.key = mp_text("b"), .value = mp_text("2")},
    };
    mp_written written = mp_test_run(input, 4);
    CHECK(written.error == NULL && written.count == 5);
    const char *values[] = {"k", "k10", "3", "1", "3"};
    for (size_t index = 0; index < 5; index++) {
        CHECK(mp_equal(written.records[index].record.value, mp_text(values[index])) && written.records[index].target == (index > 2));
    }
    mp_test_free(&written);
    written = mp_test_run(input, 5);
    CHECK(strstr(written.error, "a target that there is not") != NULL && written.failed == 4);
    mp_test_free(&written);
    input[4].key = mp_text("c");
    written = mp_test_run(input, 5);
    CHECK(strstr(written.error, "the state is full") != NULL && written.failed == 4);
    mp_test_free(&written);
    CHECK(mp_state_get_u64(mp_text("a")) == 3 && mp_state_get_u64(mp_text("b")) == 1); // what the batches that failed changed is taken back
    mp_state_release();
}

int main(void) {
    the_bytes_are_kafkas();
    what_is_written_is_read_again();
    runs_of_kept_records_lie_between_emitted_ones();
    settings_have_types_and_a_misspelt_one_is_refused();
    json_is_looked_at_as_a_whole();
    placement_is_kafkas();
    a_state_keeps_what_is_put_in_order_and_within_its_limit();
    a_scan_goes_over_any_number_of_pages();
    records_go_where_the_guest_sends_them();
    puts("the tests of the SDK for C have passed");
}
