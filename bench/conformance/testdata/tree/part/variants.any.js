// META: variant=?1-1
// META: variant=?2-last
test(() => assert_equals(location.search, "?1-1"), "the first");
