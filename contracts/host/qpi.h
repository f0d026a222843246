// All that a contract can use, as on a genuine node. Included before the contracts; what runs them
// (machine.h) comes after, so that no contract can see it.
#pragma once

#include "qpi_macros.h"
