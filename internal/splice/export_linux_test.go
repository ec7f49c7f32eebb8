package splice

import "golang.org/x/sys/unix"

// SetEpollCtl has descriptors adopted by another call until restore is called.
func SetEpollCtl(f func(epoll, op, fd int, event *unix.EpollEvent) error) (restore func()) {
	epollCtl = f
	return func() { epollCtl = unix.EpollCtl }
}
