const shared = "from /common";
function sloppy() { return this === self; }
