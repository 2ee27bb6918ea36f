// Package access owns the list of client certificates that a node refuses
// before they expire. It keeps the list on disk and knows nothing of
// connections: the API asks it at each call. It depends on durable files only.
package access
