#pragma once
/// Tells the processor that this is a waiting loop.
void ck_pause(void);
