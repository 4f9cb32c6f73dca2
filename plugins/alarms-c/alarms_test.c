#include "millpond_testing.h"

#include <string.h>

static const char *const TARGETS[] = {"alarms", "readings", NULL};

static mp_change reading(const char *device, const char *value) {
    return (mp_change){.key = mp_text(device), .value = mp_text(value)};
}

static mp_bytes header(const mp_written *written, size_t index, const char *name) {
    mp_headers headers = written->records[index].record.headers;
    for (mp_header header; mp_next_header(&headers, &header);) {
        if (mp_equal(header.name, mp_text(name))) return header.value;
    }
    return (mp_bytes){NULL, 0};
}

static void start(const char *const *settings) {
    mp_test_grant_state(4 * (64 + 8 + 1));
    MP_CHECK(mp_test_start(settings, TARGETS) == NULL);
}

static void an_alarm_is_raised_counted_and_cleared(void) {
    start(NULL);
    mp_change input[] = {reading("a", "{\"temperature\":81}"), reading("b", "{}"), reading("a", "{\"temperature\":82}")};
    mp_written written = mp_test_run(input, 3);
    MP_CHECK(written.error == NULL && written.count == 3);
    MP_CHECK(mp_equal(header(&written, 0, "count"), mp_text("1")) && mp_equal(header(&written, 1, "count"), mp_text("2")));
    MP_CHECK(written.records[1].target == 0 && written.records[2].target == 1 && mp_equal(written.records[2].record.key, mp_text("b")));
    mp_test_free(&written);
    mp_change cool = reading("a", "{\"temperature\":80}");
    written = mp_test_run(&cool, 1);
    MP_CHECK(written.count == 2 && mp_equal(header(&written, 0, "cleared"), mp_text("2")) && written.records[0].record.value.at == NULL);
    mp_test_free(&written);
    MP_CHECK(mp_state_get(mp_text("a")).at == NULL);
}

static void a_question_is_answered_a_page_at_a_time(void) {
    const char *const settings[] = {"page", "2", NULL};
    start(settings);
    const char *devices[] = {"a", "c", "b", "d"};
    mp_change input[4];
    for (size_t index = 0; index < 4; index++) input[index] = reading(devices[index], "{\"temperature\":90}");
    mp_written written = mp_test_run(input, 4);
    mp_test_free(&written);
    mp_header after = {mp_text("after"), mp_text("b")};
    mp_change questions[] = {{.value = mp_text("")}, {.value = mp_text(""), .added = &after, .added_count = 1}, {.value = mp_text("c")}};
    written = mp_test_run(questions, 3);
    const char *answers[] = {"a", "b", "c", "d", "c"};
    MP_CHECK(written.count == 5);
    for (size_t index = 0; index < 5; index++) MP_CHECK(mp_equal(written.records[index].record.key, mp_text(answers[index])));
    mp_test_free(&written);
}

static void a_batch_that_fails_changes_nothing(void) {
    start(NULL);
    mp_change first = reading("a", "{\"temperature\":90}");
    mp_written written = mp_test_run(&first, 1);
    mp_test_free(&written);
    mp_change broken[] = {first, reading("a", "[1]")};
    written = mp_test_run(broken, 2);
    MP_CHECK(written.failed == 1 && strcmp(written.error, "the value is not a JSON object") == 0);
    mp_test_free(&written);
    const char *devices[] = {"a", "b", "c", "d", "e"};
    mp_change many[5];
    for (size_t index = 0; index < 5; index++) many[index] = reading(devices[index], "{\"temperature\":90}");
    written = mp_test_run(many, 5);
    MP_CHECK(written.failed == 4 && strstr(written.error, "the state is full") != NULL);
    mp_test_free(&written);
    MP_CHECK(mp_state_get_u64(mp_text("a")) == 1 && mp_state_get(mp_text("b")).at == NULL);
}

static void it_needs_two_topics(void) {
    MP_CHECK(strstr(mp_test_start(NULL, (const char *const[]){"alarms", NULL}), "name two topics") != NULL);
}

int main(void) {
    an_alarm_is_raised_counted_and_cleared();
    a_question_is_answered_a_page_at_a_time();
    a_batch_that_fails_changes_nothing();
    it_needs_two_topics();
    puts("the tests of the guest have passed");
}
