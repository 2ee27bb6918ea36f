// Package update holds what the parts of updating share: the manifest of a
// release, what a source of releases does, and the errors by which updates are
// refused. It reads no file and opens no connection. The packages below it make
// releases, fetch them and put them in place.
package update
