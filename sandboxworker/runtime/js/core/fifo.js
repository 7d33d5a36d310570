// Fifo is a queue with constant-time ends.
class Fifo {
  constructor() { this.items = bareList(); this.head = 0; }
  get length() { return this.items.length - this.head; }
  push(v) { this.items[this.items.length] = v; }
  peek() { return this.items[this.head]; }
  at(i) { return this.items[this.head + i]; }
  last() { return this.items[this.items.length - 1]; }
  shift() {
    const v = this.items[this.head];
    this.items[this.head++] = undefined;
    if (this.head === this.items.length) {
      this.items.length = 0;
      this.head = 0;
    } else if (this.head > 64 && this.head * 2 > this.items.length) {
      ArraySplice(this.items, 0, this.head);
      this.head = 0;
    }
    return v;
  }
  clear() { this.items = bareList(); this.head = 0; }
}
bare(Fifo);
