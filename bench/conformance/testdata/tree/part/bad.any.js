test(() => assert_equals(1, 2), "fails");
test(() => assert_equals(1, 1), "passes");
test(() => assert_equals(1, 3), "fails as well,\nby a name with | and \ud800");
