// Hello prints a line: the least that a command can cost.
package main

import "fmt"

func main() { fmt.Println("hello") }
