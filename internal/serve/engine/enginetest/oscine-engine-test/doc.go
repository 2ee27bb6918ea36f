// Command oscine-engine-test is the program of the engine for tests, as a pack
// would carry it.
package main
