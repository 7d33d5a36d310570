// META: script=/common/shared.js
/* a comment */
"use strict";
test(() => assert_equals((function () { return this; })(), undefined), "a file's own directive holds");
test(() => assert_equals(sloppy(), true), "for itself alone");
