#include "millpond_testing.h"

#include <string.h>

static mp_written run(const char *const *values, size_t count) {
    mp_change input[4] = {0};
    for (size_t index = 0; index < count; index++) input[index].value = mp_text(values[index]);
    return mp_test_run(input, count);
}

static void hot_readings_are_kept_and_marked(void) {
    MP_CHECK(mp_test_start(NULL, NULL) == NULL);
    const char *values[] = {"{\"temperature\":81}", "{\"temperature\":80}", "{\"temperature\":\"hot\"}"};
    mp_written written = run(values, 3);
    MP_CHECK(written.error == NULL && written.count == 1);
    mp_header alert;
    MP_CHECK(mp_next_header(&written.records[0].record.headers, &alert));
    MP_CHECK(mp_equal(alert.name, mp_text("alert")) && mp_equal(alert.value, mp_text("hot")));
    mp_test_free(&written);
}

static void settings_choose_limit_and_field(void) {
    const char *settings[] = {"limit", "20", "field", "celsius", NULL}, *wrong[] = {"limit", "ten", NULL};
    MP_CHECK(mp_test_start(settings, NULL) == NULL);
    const char *values[] = {"{\"celsius\":20.5}"};
    mp_written written = run(values, 1);
    MP_CHECK(written.count == 1);
    mp_test_free(&written);
    MP_CHECK(strstr(mp_test_start(wrong, NULL), "the setting `limit` can't be `ten`") != NULL);
}

static void what_is_no_object_fails_its_batch(void) {
    MP_CHECK(mp_test_start(NULL, NULL) == NULL);
    const char *values[] = {"{}", "[1]"};
    mp_written written = run(values, 2);
    MP_CHECK(written.failed == 1 && strcmp(written.error, "the value is not a JSON object") == 0);
    mp_test_free(&written);
}

int main(void) {
    hot_readings_are_kept_and_marked();
    settings_choose_limit_and_field();
    what_is_no_object_fails_its_batch();
    puts("the tests of the guest have passed");
}
