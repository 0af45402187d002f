// Command migrate is the second program of the repository: run it with `paasd run APP migrate`.
package main

import "fmt"

func main() {
	fmt.Println("nothing to migrate")
}
