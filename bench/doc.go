// Package bench compares realtime servers on one machine: what a stream costs, what a delivery
// costs, and how long it takes, for this gateway, for others, and for the floor, the least that
// any server can cost here. It is what `millrace bench` runs.
package bench
