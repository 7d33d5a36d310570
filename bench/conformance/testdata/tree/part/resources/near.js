const near = shared + " and beside";
