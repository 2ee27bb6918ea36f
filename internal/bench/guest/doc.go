// Package guest boots the product's kernel with one static program as its
// init, and nothing else: the smallest machine in which a scheduling promise
// can be measured or a kernel interface tested. [Run] is the outside, [Main]
// the inside. With instruction counting the machine's clock counts executed
// instructions, so results do not depend on the load of the computer that
// emulates it. It uses the packages of internal/debian and knows nothing of
// images.
package guest
