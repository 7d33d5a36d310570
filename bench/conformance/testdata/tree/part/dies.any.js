// The host ends it; what it says of it is the file's result.
const kept = [];
for (;;) kept.push(new Array(1e5).fill(1.5));
