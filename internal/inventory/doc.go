// Package inventory says what a machine can give out: it turns the map of
// internal/hardware into the machine that internal/place chooses from. Neither of the two knows the other;
// the node and the tools join them here.
package inventory
