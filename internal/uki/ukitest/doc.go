// Package ukitest makes PE files for the tests of those who read unified kernel
// images. It depends on the standard library alone.
package ukitest
