// Package guesttest boots guests for tests: a package's own test program is
// their init and runs there what would change the whole machine here. It knows
// no kernel interface; what is tested is the package's.
package guesttest
