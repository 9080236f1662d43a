// Package settings is what a user may configure: one struct, [Settings], whose fields are at once
// the flags of the command line, the MILLRACE_* variables of the environment and the keys of one
// YAML file, under the same name in all three.
//
// # Story
//
// The command line is parsed by kong, straight into the struct. [Load] then fills in, for every
// setting that no flag gave, the environment's value, else the file's; what nobody gave keeps its
// default. kong's own environment and resolver layers are not used, for three reasons: a resolver
// wins over the environment there, its errors repeat the value (which may be a secret), and it
// stops at the first error, where we want to tell a user everything that is wrong at once.
//
// Nothing here fails half-way: every layer is read to its end, and each mistake becomes a
// [Problem] that knows where it stands ([Source]: a flag, a variable, or file, line and column),
// what was expected and an example of it. [Check] adds what can only be seen with all values
// together. No problem and no printed configuration ([Print]) ever holds a secret.
//
// # Adding a setting
//
// Add a field to the struct of its group, with the tags name, help, default and bound, and run
// the tests of this package with -update: they rewrite the table in docs/configuration.md.
package settings
