package main

// laterSpyRows were written after the thresholds were frozen.
func laterSpyRows() []spy { return nil }
