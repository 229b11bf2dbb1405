// bcryptprimitives.dll for wine 8, which lacks it: Go takes its random bytes from there. As every Go program loads it
// first, it also gives ntdll what wine 8 lacks and Windows 10 has, removing and replacing files that are open. It
// makes Linux' own calls for that, once wine has said that whoever has the file open lets it be deleted.
#include <windows.h>
#include <winternl.h>

BOOLEAN NTAPI SystemFunction036(PVOID, ULONG);

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE b, SIZE_T n) { return SystemFunction036(b, n); }

enum { dispositionEx = 64, renameEx = 65, most = 1024 };
typedef NTSTATUS(NTAPI *call)(HANDLE, IO_STATUS_BLOCK *, void *, ULONG, ULONG);
typedef struct { ULONG flags; HANDLE root; ULONG length; WCHAR name[1]; } rename_ex;

static char *(CDECL *unix_name)(LPCWSTR);
static call original, asked;

static NTSTATUS linux_call(long n, const char *a, const char *b) {
	long result = n;
	__asm__ volatile("syscall" : "+a"(result) : "D"(a), "S"(b) : "rcx", "r11", "memory");
	switch (result) {
	case 0: return 0;
	case -2: return 0xC0000034;  // ENOENT, STATUS_OBJECT_NAME_NOT_FOUND
	case -39: return 0xC0000101; // ENOTEMPTY, STATUS_DIRECTORY_NOT_EMPTY
	case -21: return 0xC00000BA; // EISDIR, STATUS_FILE_IS_A_DIRECTORY
	default: return 0xC0000022;  // STATUS_ACCESS_DENIED
	}
}

// unix_of is the path of what h is, or of a name in it.
static char *unix_of(HANDLE h, const WCHAR *name, ULONG length, WCHAR *path) {
	struct { UNICODE_STRING name; WCHAR text[most]; } is = {{0}, {0}};
	ULONG n = 0;
	if (h && NtQueryObject(h, 1, &is, sizeof is, NULL)) return NULL; // ObjectNameInformation
	n = is.name.Length / sizeof(WCHAR);
	if (n + length + 2 > most) return NULL;
	memcpy(path, is.name.Buffer, n * sizeof(WCHAR));
	if (h && length) path[n++] = '\\';
	memcpy(path + n, name, length * sizeof(WCHAR));
	path[n + length] = 0;
	path[1] = '\\'; // of \??\C:
	return unix_name(path);
}

// set is NtSetInformationFile. A file that is replaced has no name for a moment here, as it never has on Windows.
static NTSTATUS NTAPI set(HANDLE h, IO_STATUS_BLOCK *io, void *info, ULONG size, ULONG class) {
	if (class != dispositionEx && class != renameEx) return original(h, io, info, size, class);
	WCHAR path[most];
	char *from = unix_of(h, L"", 0, path), *to;
	if (!from) return 0xC0000022;
	NTSTATUS status;
	if (class == dispositionEx) {
		if ((status = linux_call(87, from, NULL)) == (NTSTATUS)0xC00000BA) // unlink, rmdir
			status = linux_call(84, from, NULL);
	} else {
		rename_ex *r = info;
		if (!(to = unix_of(r->root, r->name, r->length / sizeof(WCHAR), path))) return 0xC0000022;
		HANDLE there = CreateFileW(path, DELETE, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL,
			OPEN_EXISTING, FILE_FLAG_BACKUP_SEMANTICS | FILE_FLAG_OPEN_REPARSE_POINT, NULL);
		if (there != INVALID_HANDLE_VALUE)
			CloseHandle(there);
		else if (GetLastError() != ERROR_FILE_NOT_FOUND)
			return 0xC0000022;
		if (there != INVALID_HANDLE_VALUE && !(r->flags & 1)) return 0xC0000035; // STATUS_OBJECT_NAME_COLLISION
		if (there != INVALID_HANDLE_VALUE) linux_call(87, to, NULL); // a folder stays, and is told of below
		r->flags = 1; // ReplaceIfExists
		return original(h, io, info, size, 10); // FileRenameInformation, after which wine knows the name
	}
	return status;
}

// volume gives all files one volume: wine finds that by a name, which a file that is open loses when it is renamed.
static NTSTATUS NTAPI volume(HANDLE h, IO_STATUS_BLOCK *io, void *info, ULONG size, ULONG class) {
	NTSTATUS status = asked(h, io, info, size, class);
	if (class != 1 || size < 24) return status; // FileFsVolumeInformation
	if (status < 0) memset(info, 0, 24);
	((ULONG *)info)[2] = 1;
	return 0;
}

// hook puts what is called in the place of a call of ntdll's, and returns that.
static call hook(const char *name, call by) {
	static const BYTE jump[] = {0xFF, 0x25, 0, 0, 0, 0}; // to the address that follows
	BYTE *entry = (void *)GetProcAddress(GetModuleHandleA("ntdll"), name);
	BYTE *copy = VirtualAlloc(NULL, 4096, MEM_COMMIT | MEM_RESERVE, PAGE_EXECUTE_READWRITE);
	DWORD had;
	if (!entry || !copy || !VirtualProtect(entry, 32, PAGE_EXECUTE_READWRITE, &had)) return NULL;
	memcpy(copy, entry, 32); // all of it, and no matter where
	memcpy(entry, jump, sizeof jump);
	memcpy(entry + sizeof jump, &by, sizeof by);
	return (call)copy;
}

BOOL WINAPI DllMain(HINSTANCE self, DWORD reason, void *reserved) {
	if (reason != DLL_PROCESS_ATTACH) return TRUE;
	unix_name = (void *)GetProcAddress(GetModuleHandleA("kernel32"), "wine_get_unix_file_name");
	original = hook("NtSetInformationFile", set);
	asked = hook("NtQueryVolumeInformationFile", volume);
	return unix_name && original && asked;
}
